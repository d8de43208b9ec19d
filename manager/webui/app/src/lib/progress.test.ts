import { expect, test } from "vitest";

import { fraction, remaining, type Sample, speed, withSample } from "./progress";

const fed = (...reports: [number, number][]): Sample[] => reports.reduce<Sample[]>((samples, [at, done]) => withSample(samples, { at, done }), []);

test("a rate is told once it spans a second", () => {
  expect(speed(fed([0, 0]), 0)).toBeNull();
  expect(speed(fed([0, 0], [400, 4000]), 400)).toBeNull();
  expect(speed(fed([0, 0], [1000, 5000], [2000, 10_000]), 2000)).toBe(5000);
});

test("only the last quarter of a minute counts", () => {
  // Fast at first, slow now.
  const samples = fed([0, 0], [1000, 1_000_000], [20_000, 1_000_100], [25_000, 1_000_600], [30_000, 1_001_100]);
  expect(speed(samples, 30_000)).toBe(100);
});

test("a report after a silence is measured from before it", () => {
  expect(speed(fed([0, 0], [60_000, 600_000]), 60_000)).toBe(10_000);
});

test("nothing for a while is no rate at all", () => {
  const samples = fed([0, 0], [2000, 2000]);
  expect(speed(samples, 9000)).toBe(1000);
  expect(speed(samples, 11_000)).toBe(0);
});

test("the same report again adds nothing", () => {
  expect(fed([0, 5], [1000, 5], [2000, 5])).toEqual([{ at: 0, done: 5 }]);
});

test("a download that was begun again forgets its past", () => {
  expect(fed([0, 0], [2000, 9000], [3000, 100])).toEqual([{ at: 3000, done: 100 }]);
});

test("what is left takes as long as it takes", () => {
  expect(remaining(500, 1500, 100)).toBe(10);
  expect(remaining(1600, 1500, 100)).toBe(0);
  expect(remaining(500, null, 100)).toBeNull();
  expect(remaining(500, 1500, 0)).toBeNull();
  expect(remaining(500, 1500, null)).toBeNull();
});

test("it is whole only when all is there", () => {
  expect(fraction(0, null)).toBeNull();
  expect(fraction(0, 0)).toBe(1);
  expect(fraction(99_999_999, 100_000_000)).toBe(0.999);
  expect(fraction(100, 100)).toBe(1);
});
