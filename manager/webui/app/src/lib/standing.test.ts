import { expect, test } from "vitest";

import { later } from "./standing";

type Task = NonNullable<Parameters<typeof later>[0]>;

const open: Task = { id: "1", status: "RUNNING" };
const ended: Task = { id: "1", status: "SUCCEEDED" };

test("an answer that was overtaken by the end does not open a task again", () => {
  expect(later(ended, open)).toBe(ended);
  expect(later({ ...open, status: "NEEDS_APPROVAL" }, open)).toBe(open);
  expect(later(open, ended)).toBe(ended);
});

test("another task, or none, replaces what was known", () => {
  expect(later(ended, { ...open, id: "2" })).toEqual({ ...open, id: "2" });
  expect(later(ended, null)).toBeNull();
  expect(later(undefined, open)).toBe(open);
  expect(later(null, open)).toBe(open);
});
