/** What the verifiers said: findings first, then who looked at how much. */

import type { ReactElement } from "react";

import { sentence } from "../lib/errors";
import { count, duration } from "../lib/format";
import type { Finding, Report } from "../lib/verification";
import { Breakable, Tag, type Tone } from "./parts";

const SEVERITY: Record<string, [string, Tone]> = {
  block: ["Blocks", "bad"],
  flag: ["To be looked at", "warn"],
  note: ["Note", "quiet"],
};

const STATUS: Record<string, [string, Tone]> = {
  clean: ["Clean", "ok"],
  flagged: ["Flagged", "warn"],
  blocked: ["Blocked", "bad"],
  incomplete: ["Incomplete", "warn"],
  error: ["Failed", "bad"],
};

export function VerificationReport({ report }: { report: Report }): ReactElement {
  return (
    <div className="report">
      {report.findings.length > 0 && (
        <ul className="findings" aria-label="Findings">
          {report.findings.map((finding, index) => (
            <li key={index}>
              <FindingText finding={finding} />
            </li>
          ))}
        </ul>
      )}
      <ul className="verifiers" aria-label="Verifiers">
        {report.verifiers.map((verifier) => {
          const [text, tone] = STATUS[verifier.status] ?? [verifier.status, "quiet"];
          return (
            <li key={verifier.name}>
              <span className="verifier-name">{verifier.name}</span>
              <Tag tone={tone} dot>
                {text}
              </Tag>
              <span className="muted">
                {count(verifier.scanned, "file")}
                {verifier.skipped > 0 && `, ${verifier.skipped} left to others`}
                {verifier.seconds >= 0.5 && `, ${duration(verifier.seconds)}`}
              </span>
              {verifier.error !== null && <span className="verifier-error">{verifier.error}</span>}
            </li>
          );
        })}
      </ul>
    </div>
  );
}

function FindingText({ finding }: { finding: Finding }): ReactElement {
  const [text, tone] = SEVERITY[finding.severity] ?? [finding.severity, "bad"];
  return (
    <>
      <div className="finding-head">
        <Tag tone={tone}>{text}</Tag>
        {finding.file !== "" && (
          <code className="break">
            <Breakable text={finding.member === null ? finding.file : `${finding.file} › ${finding.member}`} />
          </code>
        )}
      </div>
      <p className="break">{sentence(finding.message)}</p>
      <p className="muted small">
        {[finding.verifier, finding.rule].filter(Boolean).join(" · ")}
      </p>
    </>
  );
}
