import { expect, test } from "vitest";

import { nameParts, uuidOf } from "./ids";

const KEY = "64b55bbb-70b3-448b-9f26-0d86e35a84a8";

test("a global id has a plain UUID inside", () => {
  expect(uuidOf(btoa(`VFolder:${KEY}`))).toBe(KEY);
  expect(uuidOf(KEY)).toBe(KEY);
});

test("what is neither stays as it is", () => {
  expect(uuidOf("%%%")).toBe("%%%");
  expect(uuidOf(btoa("VFolder:7"))).toBe(btoa("VFolder:7"));
});

test("a name has an author before its slash", () => {
  expect(nameParts("org/name")).toEqual({ author: "org", model: "name" });
  expect(nameParts("name")).toEqual({ author: "", model: "name" });
});
