import { type ReactElement, useEffect, useRef, useState } from "react";
import { useClient } from "urql";
import { Link } from "wouter";
import { navigate } from "wouter/use-browser-location";

import { ApproveTaskDocument, CancelTaskDocument, ImportDocument, type ImportStep, RejectTaskDocument, RetryTaskDocument, type TaskDetailFragment } from "../graphql/generated";
import { useMe, usePace, useTask, useTitle } from "../hooks";
import { describe, errorText, remedy } from "../lib/errors";
import { bytes, count, duration, moment, rate } from "../lib/format";
import { uuidOf } from "../lib/ids";
import { fraction } from "../lib/progress";
import { readReport } from "../lib/verification";
import { isOpen } from "../lib/standing";
import { announce } from "../ui/announce";
import { Dialog } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Breakable, Button, Copy, CopyLine, Field, Loading, Note, Progress, Skeleton, TaskStatusTag, taskStatusText, Time } from "../ui/parts";
import { VerificationReport } from "../ui/report";
import { NotFound } from "./not-found";

export function TaskView({ id }: { id: string }): ReactElement {
  const { task, error, again } = useTask(id);
  const name = task?.artifactRevision.artifact?.name;
  const done = task == null ? null : fraction(Number(task.bytesDone), task.bytesTotal === null ? null : Number(task.bytesTotal));
  const title = task == null || name === undefined ? "Task" : task.status === "RUNNING" && done !== null ? `${Math.floor(done * 100)} % ${name}` : `${taskStatusText(task.status)}: ${name}`;
  useTitle(title);
  if (task === undefined) {
    if (error && error.graphQLErrors.length > 0) return <NotFound title="There is no such task">{describe(error)}</NotFound>;
    return (
      <div className="page page-narrow">
        <Loading what="the task" />
        <Skeleton kind="row" lines={1} />
        <Skeleton kind="card" lines={1} />
      </div>
    );
  }
  if (task === null) return <NotFound title="There is no such task">It may be somebody else's, or the address is misspelt.</NotFound>;
  return <TaskPage task={task} again={again} />;
}

type Action = "cancel" | "retry" | "replace" | "approve" | "reject";

function TaskPage({ task, again }: { task: TaskDetailFragment; again: () => void }): ReactElement {
  const me = useMe();
  const client = useClient();
  const [busy, setBusy] = useState<Action | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const [rejecting, setRejecting] = useState(false);
  const artifact = task.artifactRevision.artifact;
  const folder = "vfolder" in task.destination ? task.destination.vfolder : null;
  const report = task.verificationResult === null ? null : readReport(task.verificationResult);
  useAnnounced(task);

  // A cancel is asked for, and then happens.
  const [stopping, setStopping] = useState(false);
  useEffect(() => {
    if (!isOpen(task.status)) setStopping(false);
  }, [task.status]);

  const run = async (action: Action, reason?: string): Promise<boolean> => {
    if (busy !== null) return false;
    setBusy(action);
    setFault(null);
    const { id } = task;
    const asked =
      action === "cancel"
        ? await client.mutation(CancelTaskDocument, { id })
        : action === "approve"
          ? await client.mutation(ApproveTaskDocument, { id })
          : action === "reject"
            ? await client.mutation(RejectTaskDocument, { id, reason: reason || null })
            : null;
    if (asked !== null) {
      setBusy(null);
      if (asked.error) {
        setFault(describe(asked.error));
        return false;
      }
      if (action === "cancel") setStopping(true);
      again();
      return true;
    }
    let next: string | undefined;
    if (action === "retry") {
      const { data, error } = await client.mutation(RetryTaskDocument, { id });
      if (error) setFault(describe(error));
      next = data?.retryImportTask.task.id;
    } else if (folder !== null) {
      const { data, error } = await client.mutation(ImportDocument, {
        input: {
          artifactRevisionIds: [task.artifactRevision.id],
          vfolderId: folder.id,
          options: { path: task.path === "" ? "/" : task.path, onConflict: "OVERWRITE" },
        },
      });
      if (error) setFault(describe(error));
      next = data?.importArtifacts?.tasks[0]?.taskId ?? undefined;
    }
    setBusy(null);
    if (next !== undefined) navigate(`/tasks/${uuidOf(next)}`);
    return next !== undefined;
  };

  const help = task.error === null ? null : remedy(task.error.code);
  return (
    <div className="page page-narrow">
      <nav className="crumbs" aria-label="Breadcrumb">
        <Link href="/tasks">
          <Icon name="back" size={14} />
          Tasks
        </Link>
      </nav>
      <header className="task-head">
        <div>
          <h1>
            {artifact === null ? "A model" : (
              <Link href={`/models/${uuidOf(artifact.id)}`}>
                <Breakable text={artifact.name} />
              </Link>
            )}
          </h1>
          <p className="task-way">
            <span className="mono break">{task.artifactRevision.version}</span>
            <Icon name="right" size={12} />
            {folder === null ? (
              <span>the artifact storage</span>
            ) : (
              <Link href={`/folders/${uuidOf(folder.id)}`} className="break">
                <Breakable text={folder.name} />
              </Link>
            )}
          </p>
        </div>
        <TaskStatusTag status={task.status} />
      </header>

      <section className={`panel task-panel task-${task.status.toLowerCase()}`} aria-label="How it stands">
        <Steps task={task} />
        {(task.status === "PENDING" || task.status === "RUNNING") && <Pace task={task} />}
        {stopping && isOpen(task.status) && (
          <p className="muted quiet-line" role="status">
            Stopping, and removing what was staged…
          </p>
        )}
        {task.status === "SUCCEEDED" && (
          <Note tone="ok" title={`${count(task.filesTotal ?? task.filesDone, "file")}, ${bytes(task.bytesTotal ?? task.bytesDone)}, all in place`}>
            {folder === null ? (
              <p>The model is in the artifact storage, for everybody to take.</p>
            ) : (
              <p>
                It is in{" "}
                <Link href={`/folders/${uuidOf(folder.id)}${task.path === "" || task.path === "/" ? "" : `?path=${encodeURIComponent(task.path)}`}`}>
                  <Breakable text={folder.name} />
                </Link>
                {task.startedAt !== null && task.finishedAt !== null && `, after ${duration((Date.parse(task.finishedAt) - Date.parse(task.startedAt)) / 1000)}`}.
              </p>
            )}
          </Note>
        )}
        {task.status === "CANCELLED" && (
          <Note tone="quiet" title="It was cancelled">
            <p>Nothing of it was published, and what was staged is removed.</p>
          </Note>
        )}
        {task.error !== null && help !== null && (
          <Note tone="bad" title={errorText(task.error)}>
            {help.text !== "" && <p>{help.text}</p>}
            <p className="muted small mono">{task.error.code}{task.error.step !== null && ` in ${STEP_NAMES[task.error.step].toLowerCase()}`}</p>
          </Note>
        )}
        {task.status === "NEEDS_APPROVAL" && (
          <Note tone="warn" title="Somebody has to look at it first">
            <p>
              {me.isAdmin
                ? `${count(task.filesDone, "file")}, ${bytes(task.bytesDone)} have arrived, and the verifiers flagged what is below. Approve, and it is published once it is checked again; reject, and it is removed.`
                : `${count(task.filesDone, "file")}, ${bytes(task.bytesDone)} have arrived, and the verifiers flagged what is below. An administrator approves or rejects it; you need not stay.`}
            </p>
          </Note>
        )}
        {fault !== null && (
          <Note tone="bad" title="That did not work">
            <p>{fault}</p>
          </Note>
        )}
        <div className="row task-actions">
          {task.status === "NEEDS_APPROVAL" && me.isAdmin && (
            <>
              <Button kind="primary" icon="check" busy={busy === "approve"} onClick={() => void run("approve")}>
                Approve and publish
              </Button>
              <Button kind="danger" onClick={() => setRejecting(true)}>
                Reject
              </Button>
            </>
          )}
          {isOpen(task.status) && (
            <Button icon="stop" busy={busy === "cancel"} disabled={stopping} onClick={() => void run("cancel")}>
              Cancel import
            </Button>
          )}
          {(task.status === "FAILED" || task.status === "CANCELLED") && (
            <Button kind={help?.retry === false ? "plain" : "primary"} icon="retry" busy={busy === "retry"} onClick={() => void run("retry")}>
              Try again
            </Button>
          )}
          {task.error?.code === "DESTINATION_CONFLICT" && folder !== null && (
            <Button kind="danger" busy={busy === "replace"} onClick={() => void run("replace")}>
              Replace what is in the way
            </Button>
          )}
        </div>
      </section>

      {report !== null && (report.findings.length > 0 || !isOpen(task.status) || task.status === "NEEDS_APPROVAL") && (
        <section className="panel" aria-labelledby="verification">
          <div className="panel-head">
            <h2 id="verification">Verification</h2>
            <span className="muted">
              {report.findings.length > 0 ? count(report.findings.length, "finding") : report.verdict === "clean" ? "every file, nothing found" : report.verdict}
            </span>
          </div>
          <VerificationReport report={report} />
        </section>
      )}

      <section className="panel" aria-labelledby="details">
        <div className="panel-head">
          <h2 id="details">Details</h2>
        </div>
        <dl className="details">
          <div>
            <dt>Path</dt>
            <dd>
              <CopyLine text={task.path === "" ? "/" : task.path} label="Copy the path" />
            </dd>
          </div>
          <div>
            <dt>Commit</dt>
            <dd>{task.commit === null ? <span className="muted">pinned when it begins</span> : <CopyLine text={task.commit} label="Copy the commit" />}</dd>
          </div>
          <div>
            <dt>Asked for</dt>
            <dd>
              <Time at={task.createdAt} /> <span className="muted">by</span> <span className="break">{task.requestedBy.email}</span>
            </dd>
          </div>
          {task.finishedAt !== null && (
            <div>
              <dt>Ended</dt>
              <dd>{moment(task.finishedAt)}</dd>
            </div>
          )}
          <div>
            <dt>Request</dt>
            <dd>
              <Copy text={task.requestId} label="Copy the request id">
                <code className="break">{task.requestId}</code>
              </Copy>
            </dd>
          </div>
        </dl>
      </section>
      {rejecting && (
        <RejectDialog
          busy={busy === "reject"}
          fault={fault}
          onClose={() => setRejecting(false)}
          onReject={async (reason) => {
            if (await run("reject", reason)) setRejecting(false);
          }}
        />
      )}
    </div>
  );
}

const STEP_NAMES: Record<ImportStep, string> = { DOWNLOAD: "Download", VERIFY: "Verify", ARCHIVE: "Publish" };
const STEPS: ImportStep[] = ["DOWNLOAD", "VERIFY", "ARCHIVE"];

function Steps({ task }: { task: TaskDetailFragment }): ReactElement {
  const at = task.status === "SUCCEEDED" ? STEPS.length : task.status === "NEEDS_APPROVAL" ? 1 : task.step === null ? -1 : STEPS.indexOf(task.step);
  return (
    <ol className="steps" aria-label="Steps">
      {STEPS.map((step, index) => {
        const state = index < at ? "done" : index > at ? "ahead" : task.status === "FAILED" ? "failed" : isOpen(task.status) ? "now" : "ended";
        return (
          <li key={step} className={`step step-${state}`} aria-current={state === "now" ? "step" : undefined}>
            <span className="step-mark" aria-hidden="true">
              {state === "done" ? <Icon name="check" size={12} /> : state === "failed" ? <Icon name="cross" size={12} /> : state === "ended" ? <Icon name="stop" size={12} /> : index + 1}
            </span>
            <span>
              {STEP_NAMES[step]}
              <span className="visually-hidden">{state === "done" ? ", done" : state === "failed" ? ", failed here" : ""}</span>
            </span>
          </li>
        );
      })}
    </ol>
  );
}

function Pace({ task }: { task: TaskDetailFragment }): ReactElement {
  const { perSecond, left } = usePace(task);
  const total = task.bytesTotal === null ? null : Number(task.bytesTotal);
  const value = fraction(Number(task.bytesDone), total);
  const loading = task.step === null || task.step === "DOWNLOAD";
  const waiting = task.status !== "RUNNING";
  return (
    <div className="pace">
      <p className="pace-big">
        {task.status === "PENDING" ? (
          "Waiting to begin"
        ) : !loading ? (
          task.step === "VERIFY" ? "Verifying every file" : "Publishing"
        ) : value === null ? (
          "Listing files"
        ) : (
          <>
            {Math.floor(value * 100)}
            <span className="pace-unit">%</span>
          </>
        )}
      </p>
      <Progress
        value={task.status === "PENDING" ? 0 : loading ? value : null}
        label="Progress of the import"
      />
      <dl className="pace-facts">
        <div>
          <dt>Arrived</dt>
          <dd className="mono">
            {bytes(task.bytesDone)}
            {total !== null && <span className="muted"> of {bytes(total)}</span>}
          </dd>
        </div>
        <div>
          <dt>Files</dt>
          <dd className="mono">
            {task.filesDone}
            {task.filesTotal !== null && <span className="muted"> of {task.filesTotal}</span>}
          </dd>
        </div>
        <div>
          <dt>Rate</dt>
          <dd className="mono">{waiting || !loading || perSecond === null ? <span className="muted">–</span> : perSecond === 0 ? "waiting for data" : rate(perSecond)}</dd>
        </div>
        <div>
          <dt>Left</dt>
          <dd className="mono">{waiting || !loading || left === null ? <span className="muted">–</span> : duration(left)}</dd>
        </div>
      </dl>
    </div>
  );
}

/** Tell screen readers of each quarter and each change of state, and no more. */
function useAnnounced(task: TaskDetailFragment): void {
  const told = useRef<string | null>(null);
  const value = fraction(Number(task.bytesDone), task.bytesTotal === null ? null : Number(task.bytesTotal));
  const quarter = value === null ? 0 : Math.floor(value * 4) * 25;
  const text = task.status === "RUNNING" ? (task.step === "VERIFY" ? "Verifying" : task.step === "ARCHIVE" ? "Publishing" : `${quarter} percent`) : taskStatusText(task.status);
  useEffect(() => {
    if (told.current !== null && told.current !== text) announce(text);
    told.current = text;
  }, [text]);
}

interface RejectProps {
  busy: boolean;
  fault: string | null;
  onClose: () => void;
  onReject: (reason: string) => Promise<void>;
}

function RejectDialog({ busy, fault, onClose, onReject }: RejectProps): ReactElement {
  const [reason, setReason] = useState("");
  return (
    <Dialog title="Reject this import" closable={!busy} onClose={onClose}>
      <form
        className="dialog-form"
        onSubmit={(event) => {
          event.preventDefault();
          void onReject(reason.trim());
        }}
      >
        <div className="dialog-body stack">
          <p>It ends as failed, and its files are removed. Whoever asked for it sees your reason.</p>
          <Field label="Reason" optional error={fault ?? undefined}>
            {(props) => <textarea {...props} rows={3} maxLength={1000} autoFocus value={reason} onChange={(event) => setReason(event.target.value)} />}
          </Field>
        </div>
        <div className="dialog-foot">
          <Button onClick={onClose} disabled={busy}>
            Back
          </Button>
          <Button kind="danger" type="submit" busy={busy}>
            Reject
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
