import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Connection, retryDelay } from "./connection";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("delays double within a bound, and differ from client to client", () => {
  const half = (): number => 0.5;
  expect([0, 1, 2, 3].map((attempt) => retryDelay(attempt, half))).toEqual([500, 1000, 2000, 4000]);
  expect(retryDelay(400, half)).toBe(10_000);
  expect(retryDelay(0, () => 0)).toBe(400);
  expect(retryDelay(0, () => 1)).toBe(600);
});

test("it asks until there is an answer, then counts a new beginning", async () => {
  const answers = [false, false, true];
  const probe = vi.fn(() => Promise.resolve(answers.shift() ?? true));
  const connection = new Connection(probe);
  const seen: boolean[] = [];
  connection.subscribe(() => seen.push(connection.snapshot().online));
  connection.lost();
  expect(connection.snapshot().online).toBe(false);
  expect(connection.snapshot().epoch).toBe(0);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(probe).toHaveBeenCalledTimes(3);
  expect(connection.snapshot()).toEqual({ online: true, epoch: 1, retryIn: 0 });
  expect(seen).toEqual([false, false, false, true]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(probe).toHaveBeenCalledTimes(3);
});

test("many losses at once are one", async () => {
  const probe = vi.fn(() => Promise.resolve(true));
  const connection = new Connection(probe);
  connection.lost();
  connection.lost();
  connection.lost();
  await vi.advanceTimersByTimeAsync(5000);
  expect(probe).toHaveBeenCalledTimes(1);
  expect(connection.snapshot().epoch).toBe(1);
});

test("signing in again is a new beginning without a loss", () => {
  const connection = new Connection(() => Promise.resolve(true));
  connection.renewed();
  expect(connection.snapshot()).toEqual({ online: true, epoch: 1, retryIn: 0 });
});

test("a person need not wait", async () => {
  const probe = vi.fn(() => Promise.resolve(true));
  const connection = new Connection(probe);
  connection.tryNow();
  expect(probe).not.toHaveBeenCalled();
  connection.lost();
  connection.tryNow();
  await vi.advanceTimersByTimeAsync(0);
  expect(connection.snapshot().online).toBe(true);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(probe).toHaveBeenCalledTimes(1);
});
