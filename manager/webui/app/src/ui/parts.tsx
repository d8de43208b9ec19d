/** The small parts that views are made of. */

import { type ReactElement, type ReactNode, useEffect, useId, useRef, useState } from "react";

import type { ArtifactStatus, ImportTaskStatus } from "../graphql/generated";
import { useNow } from "../hooks";
import { ago, moment } from "../lib/format";
import { Icon, type IconName } from "./icons";

export type Tone = "quiet" | "info" | "ok" | "warn" | "bad";

const ARTIFACT_STATUS: Record<ArtifactStatus, [string, Tone]> = {
  SCANNED: ["In registry", "quiet"],
  PULLING: ["Importing", "info"],
  PULLED: ["Fetched", "info"],
  VERIFYING: ["Verifying", "info"],
  NEEDS_APPROVAL: ["Needs approval", "warn"],
  AVAILABLE: ["In storage", "ok"],
  FAILED: ["Failed", "bad"],
  REJECTED: ["Rejected", "bad"],
};

const TASK_STATUS: Record<ImportTaskStatus, [string, Tone]> = {
  PENDING: ["Waiting", "quiet"],
  RUNNING: ["Running", "info"],
  NEEDS_APPROVAL: ["Needs approval", "warn"],
  SUCCEEDED: ["Done", "ok"],
  FAILED: ["Failed", "bad"],
  CANCELLED: ["Cancelled", "quiet"],
};

export const taskStatusText = (status: ImportTaskStatus): string => TASK_STATUS[status][0];

export function Tag({ tone = "quiet", dot = false, children }: { tone?: Tone; dot?: boolean; children: ReactNode }): ReactElement {
  return (
    <span className={`tag tag-${tone}`}>
      {dot && <span className="dot" aria-hidden="true" />}
      {children}
    </span>
  );
}

export function ArtifactStatusTag({ status }: { status: ArtifactStatus }): ReactElement {
  const [text, tone] = ARTIFACT_STATUS[status];
  return (
    <Tag tone={tone} dot>
      {text}
    </Tag>
  );
}

export function TaskStatusTag({ status }: { status: ImportTaskStatus }): ReactElement {
  const [text, tone] = TASK_STATUS[status];
  return (
    <Tag tone={tone} dot>
      {text}
    </Tag>
  );
}

export function Verified(): ReactElement {
  return (
    <span className="verified">
      <Icon name="shield" size={14} />
      Verified
    </span>
  );
}

interface ButtonProps {
  children: ReactNode;
  kind?: "primary" | "plain" | "quiet" | "danger";
  icon?: IconName;
  busy?: boolean;
  disabled?: boolean;
  type?: "button" | "submit";
  onClick?: () => void;
  describedBy?: string | undefined;
  autoFocus?: boolean;
}

/** A button; a busy one keeps its place and the focus, and does nothing. */
export function Button({ children, kind = "plain", icon, busy = false, disabled = false, type = "button", onClick, describedBy, autoFocus }: ButtonProps): ReactElement {
  return (
    <button
      type={type}
      className={`button button-${kind}`}
      disabled={disabled}
      aria-disabled={busy || undefined}
      aria-describedby={describedBy}
      autoFocus={autoFocus}
      onClick={(event) => {
        if (busy) event.preventDefault();
        else onClick?.();
      }}
    >
      {busy ? <span className="spinner" aria-hidden="true" /> : icon !== undefined && <Icon name={icon} />}
      <span>{children}</span>
    </button>
  );
}

interface FieldProps {
  label: string;
  hint?: ReactNode;
  error?: string | undefined;
  optional?: boolean;
  children: (props: { id: string; "aria-describedby": string | undefined; "aria-invalid": true | undefined }) => ReactNode;
}

/** A field with its label, and beneath it what helps or what is wrong. */
export function Field({ label, hint, error, optional = false, children }: FieldProps): ReactElement {
  const id = useId();
  const described = [error ? `${id}-error` : "", hint ? `${id}-hint` : ""].filter(Boolean).join(" ");
  return (
    <div className={error ? "field field-wrong" : "field"}>
      <label htmlFor={id}>
        {label}
        {optional && <span className="optional"> optional</span>}
      </label>
      {children({ id, "aria-describedby": described || undefined, "aria-invalid": error ? true : undefined })}
      {error && <FieldError id={`${id}-error`}>{error}</FieldError>}
      {hint && (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

export function FieldError({ id, children }: { id: string; children: ReactNode }): ReactElement {
  return (
    <p className="field-error" id={id} role="alert">
      <Icon name="alert" size={14} />
      <span>{children}</span>
    </p>
  );
}

/** Something to know, in a frame of its own. */
export function Note({ tone = "info", title, children, actions }: { tone?: Tone; title?: string; children?: ReactNode; actions?: ReactNode }): ReactElement {
  return (
    <div className={`note note-${tone}`} role={tone === "bad" ? "alert" : undefined}>
      <Icon name={tone === "ok" ? "check" : tone === "info" || tone === "quiet" ? "hourglass" : "alert"} />
      <div className="note-text">
        {title !== undefined && <p className="note-title">{title}</p>}
        {children}
        {actions !== undefined && <div className="row">{actions}</div>}
      </div>
    </div>
  );
}

/** Nothing is here, and what to do about it. */
export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }): ReactElement {
  return (
    <div className="empty">
      <svg width="88" height="60" viewBox="0 0 88 60" aria-hidden="true" focusable="false">
        <path className="empty-line" d="M4 14h80M10 14v34a6 6 0 0 0 6 6h56a6 6 0 0 0 6-6V14" />
        <path className="empty-ghost" d="M20 38h13v10H20zM37 38h13v10H37zM54 38h13v10H54zM37 24h13v10H37z" />
      </svg>
      <p className="empty-title">{title}</p>
      {children !== undefined && <div className="empty-text">{children}</div>}
      {action}
    </div>
  );
}

/** Lines where text will be. */
export function Skeleton({ lines = 3, kind = "text" }: { lines?: number; kind?: "text" | "card" | "row" }): ReactElement {
  return (
    <>
      {Array.from({ length: lines }, (_, index) => (
        <div key={index} className={`skeleton skeleton-${kind}`} aria-hidden="true" />
      ))}
    </>
  );
}

/** How much of something is used. */
export function Meter({ used, limit, label, extra = 0 }: { used: number; limit: number; label: string; extra?: number }): ReactElement {
  const part = limit <= 0 ? 1 : Math.min(1, used / limit);
  const more = limit <= 0 ? 0 : Math.min(1 - part, extra / limit);
  const over = used + extra > limit;
  return (
    <div className={over ? "meter meter-over" : part + more > 0.9 ? "meter meter-tight" : "meter"} role="img" aria-label={label}>
      <span className="meter-used" style={{ width: `${part * 100}%` }} />
      {extra > 0 && <span className="meter-extra" style={{ width: `${Math.max(more * 100, 1)}%` }} />}
    </div>
  );
}

/** How far something is; without a value it is under way and nobody knows how far. */
export function Progress({ value, label, tone = "info" }: { value: number | null; label: string; tone?: Tone }): ReactElement {
  return (
    <div
      className={`progress progress-${tone}${value === null ? " progress-unknown" : ""}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={value === null ? undefined : Math.floor(value * 100)}
    >
      <span style={{ transform: `scaleX(${value ?? 1})` }} />
    </div>
  );
}

/** A time, as long ago as it is; the whole of it on a closer look. */
export function Time({ at }: { at: string }): ReactElement {
  const now = useNow(30_000);
  return (
    <time dateTime={at} title={moment(at)}>
      {ago(at, now)}
    </time>
  );
}

/** Copies a text, and says so. */
export function Copy({ text, label, children }: { text: string; label: string; children?: ReactNode }): ReactElement {
  const [copied, setCopied] = useState<"yes" | "no" | null>(null);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async (): Promise<void> => {
    setCopied((await write(text)) ? "yes" : "no");
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setCopied(null), 2500);
  };
  return (
    <button type="button" className={children === undefined ? "copy copy-bare" : "copy"} aria-label={children === undefined ? label : undefined} title={label} onClick={() => void copy()}>
      <Icon name={copied === "yes" ? "check" : "copy"} size={14} />
      {children}
      {children !== undefined && <span className="visually-hidden">, {label}</span>}
      <span className="visually-hidden" role="status">
        {copied === "yes" ? "Copied" : copied === "no" ? "The browser did not let it be copied" : ""}
      </span>
    </button>
  );
}

async function write(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without a secure context a selection in a field is all there is.
    const field = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

/** A text of one command or path, with a button that copies it. */
export function CopyLine({ text, label }: { text: string; label: string }): ReactElement {
  return (
    <div className="copy-line">
      <code>{text}</code>
      <Copy text={text} label={label} />
    </div>
  );
}

/** A name that may be long: it breaks at its joints. */
export function Breakable({ text }: { text: string }): ReactElement {
  // One element around them all: the children of a flex box would stand apart, and be read apart.
  return (
    <span>
      {text.split(/(?<=[/._-])/).map((piece, index) => (
        <span key={index}>
          {piece}
          <wbr />
        </span>
      ))}
    </span>
  );
}

export function Loading({ what }: { what: string }): ReactElement {
  return (
    <p className="visually-hidden" role="status">
      Loading {what}
    </p>
  );
}
