import { describe, expect, test } from "vitest";

import { ago, bytes, count, duration, rate } from "./format";

describe("bytes", () => {
  test.each([
    ["0", "0 B"],
    ["1023", "1023 B"],
    ["1024", "1.0 KiB"],
    ["8498873", "8.1 MiB"],
    ["104857600", "100 MiB"],
    ["1048575", "1.0 MiB"],
    ["9223372036854775807", "8.0 EiB"],
    [null, "unknown"],
    ["", "unknown"],
    ["-1", "unknown"],
    ["much", "unknown"],
  ])("%s is %s", (value, text) => {
    expect(bytes(value)).toBe(text);
  });
});

test("a rate is never negative", () => {
  expect(rate(-5)).toBe("0 B/s");
  expect(rate(3 * 1024 * 1024)).toBe("3.0 MiB/s");
});

test.each([
  [0.2, "0 s"],
  [59, "59 s"],
  [60, "1 min"],
  [95, "1 min 35 s"],
  [3599, "60 min"],
  [3600, "1 h"],
  [5400, "1 h 30 min"],
  [90_000, "1 d 1 h"],
])("%d seconds are %s", (seconds, text) => {
  expect(duration(seconds)).toBe(text);
});

test("a time is told as long ago as it is", () => {
  const now = Date.parse("2026-11-26T12:00:00Z");
  expect(ago("2026-11-26T11:59:50Z", now)).toBe("just now");
  // A clock that is a little ahead is no future.
  expect(ago("2026-11-26T12:00:05Z", now)).toBe("just now");
  expect(ago("2026-11-26T11:50:00Z", now)).toBe("10 min ago");
  expect(ago("2026-11-26T09:00:00Z", now)).toBe("3 h ago");
  expect(ago("2026-11-25T11:00:00Z", now)).toBe("yesterday");
  expect(ago("2026-11-20T11:00:00Z", now)).toBe("6 days ago");
  expect(ago("2026-01-02T11:00:00Z", now)).toBe("Jan 2, 2026");
});

test("a count bears its noun", () => {
  expect(count(1, "file")).toBe("1 file");
  expect(count(1200, "file")).toBe("1,200 files");
  expect(count(2, "file is", "files are")).toBe("2 files are");
});
