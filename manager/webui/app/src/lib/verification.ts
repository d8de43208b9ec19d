/** What verifiers said, as people read it. */

import type { VerificationFragment } from "../graphql/generated";

export interface Finding {
  file: string;
  member: string | null;
  rule: string;
  severity: string;
  message: string;
  verifier: string;
}

export interface VerifierReport {
  name: string;
  status: string;
  success: boolean;
  scanned: number;
  skipped: number;
  seconds: number;
  error: string | null;
  findings: Finding[];
}

export type Verdict = "clean" | "flagged" | "blocked" | "incomplete";

export interface Report {
  verdict: Verdict;
  verifiers: VerifierReport[];
  /** The gravest first. */
  findings: Finding[];
}

const GRAVITY = ["block", "flag", "note"];

/** Read a report. A finding that cannot be read is shown as it is rather than left out. */
export function readReport(result: VerificationFragment): Report {
  const verifiers = result.verifiers.map(({ name, result: said }) => {
    const facts = new Map(said.metadata.entries.map(({ key, value }) => [key, value]));
    const findings = said.metadata.entries
      .filter(({ key }) => key.startsWith("finding."))
      .map(({ value }) => readFinding(value, name));
    return {
      name,
      status: facts.get("status") ?? (said.success ? "clean" : "error"),
      success: said.success,
      scanned: said.scannedCount,
      skipped: Number(facts.get("skipped") ?? 0),
      seconds: said.scanTime,
      error: said.error,
      findings,
    };
  });
  const findings = verifiers.flatMap((verifier) => verifier.findings);
  findings.sort((one, other) => gravity(one.severity) - gravity(other.severity));
  return { verdict: verdictOf(verifiers), verifiers, findings };
}

function readFinding(value: string, verifier: string): Finding {
  try {
    const read: unknown = JSON.parse(value);
    if (typeof read === "object" && read !== null) {
      const text = (key: string): string => {
        const found = (read as Record<string, unknown>)[key];
        return typeof found === "string" ? found : "";
      };
      return {
        file: text("file"),
        member: text("member") || null,
        rule: text("rule"),
        severity: text("severity") || "block",
        // Most begin with the file, which stands above them.
        message: text("message").replace(`${text("file")}: `, "") || value,
        verifier,
      };
    }
  } catch {
    // Shown as it is, below.
  }
  return { file: "", member: null, rule: "", severity: "block", message: value, verifier };
}

function gravity(severity: string): number {
  const place = GRAVITY.indexOf(severity);
  return place < 0 ? 0 : place;
}

function verdictOf(verifiers: readonly VerifierReport[]): Verdict {
  const states = new Set(verifiers.map((verifier) => verifier.status));
  if (states.has("blocked")) return "blocked";
  if (states.has("incomplete") || states.has("error") || verifiers.length === 0) return "incomplete";
  return states.has("flagged") ? "flagged" : "clean";
}
