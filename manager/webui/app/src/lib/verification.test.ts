import { expect, test } from "vitest";

import type { VerificationFragment } from "../graphql/generated";
import { readReport } from "./verification";

type Said = [name: string, status: string, findings?: (Record<string, unknown> | string)[]];

function said(...verifiers: Said[]): VerificationFragment {
  return {
    verifiers: verifiers.map(([name, status, findings = []]) => ({
      name,
      result: {
        success: status === "clean",
        infectedCount: findings.length,
        scannedAt: "2026-11-26T12:00:00Z",
        scanTime: 0.25,
        scannedCount: 3,
        error: null,
        metadata: {
          entries: [
            { key: "status", value: status },
            { key: "skipped", value: "2" },
            ...findings.map((finding, index) => ({
              key: `finding.${index}`,
              value: typeof finding === "string" ? finding : JSON.stringify(finding),
            })),
          ],
        },
      },
    })),
  };
}

const finding = (severity: string, file = "a.bin"): Record<string, unknown> => ({ file, member: null, rule: "pickle-global", category: "code", severity, message: `names os.system (${severity})` });

test("the gravest finding comes first, whoever made it", () => {
  const report = readReport(said(["one", "flagged", [finding("note"), finding("flag")]], ["two", "blocked", [finding("block")]]));
  expect(report.findings.map((each) => [each.verifier, each.severity])).toEqual([
    ["two", "block"],
    ["one", "flag"],
    ["one", "note"],
  ]);
  expect(report.verdict).toBe("blocked");
});

test.each<[Said[], string]>([
  [[["one", "clean"], ["two", "clean"]], "clean"],
  [[["one", "clean"], ["two", "flagged"]], "flagged"],
  [[["one", "flagged"], ["two", "incomplete"]], "incomplete"],
  [[["one", "error"]], "incomplete"],
  [[], "incomplete"],
])("%j is %s", (verifiers, verdict) => {
  expect(readReport(said(...verifiers)).verdict).toBe(verdict);
});

test("a finding that cannot be read is shown, and taken seriously", () => {
  const report = readReport(said(["one", "blocked", ["no json", '"text"']]));
  expect(report.findings.map((each) => [each.message, each.severity])).toEqual([
    ["no json", "block"],
    ['"text"', "block"],
  ]);
});

test("a message does not name the file again that stands above it", () => {
  const report = readReport(said(["one", "blocked", [{ ...finding("block"), message: "a.bin: names os.system" }]]));
  expect(report.findings[0]).toMatchObject({ file: "a.bin", message: "names os.system" });
});

test("counts are read from what the verifier reports", () => {
  expect(readReport(said(["one", "clean"])).verifiers[0]).toMatchObject({ scanned: 3, skipped: 2, seconds: 0.25 });
});
