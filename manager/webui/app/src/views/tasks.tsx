import { type ReactElement, useState } from "react";
import { Link, useSearch } from "wouter";
import { navigate } from "wouter/use-browser-location";

import { type ImportTaskStatus, TasksDocument, type TasksQuery } from "../graphql/generated";
import { useData, useEvery, useLiveTask, useMe, usePace, useTitle } from "../hooks";
import { describe, errorText } from "../lib/errors";
import { bytes, count, duration, rate } from "../lib/format";
import { uuidOf } from "../lib/ids";
import { fraction } from "../lib/progress";
import { isOpen } from "../lib/standing";
import { Breakable, Button, Empty, Loading, Note, Progress, Skeleton, TaskStatusTag, Time } from "../ui/parts";

type Row = NonNullable<TasksQuery["importTasks"]>["edges"][number]["node"];

const OPEN: ImportTaskStatus[] = ["PENDING", "RUNNING", "NEEDS_APPROVAL"];
const ENDED: ImportTaskStatus[] = ["SUCCEEDED", "FAILED", "CANCELLED"];
const VIEWS = {
  all: { label: "All", statuses: ENDED },
  done: { label: "Done", statuses: ["SUCCEEDED"] },
  failed: { label: "Failed", statuses: ["FAILED"] },
  cancelled: { label: "Cancelled", statuses: ["CANCELLED"] },
} as const satisfies Record<string, { label: string; statuses: readonly ImportTaskStatus[] }>;

export function TasksView(): ReactElement {
  useTitle("Tasks");
  const wanted = new URLSearchParams(useSearch()).get("show") ?? "all";
  const view = Object.hasOwn(VIEWS, wanted) ? (wanted as keyof typeof VIEWS) : "all";
  const [open, openAgain] = useData({ query: TasksDocument, variables: { first: 24, after: null, status: OPEN, vfolderId: null } });
  const [round, setRound] = useState(0);
  // What others begin, or this person elsewhere, is told by no subscription.
  useEvery(5000, openAgain);
  const running = open.data?.importTasks?.edges.map((edge) => edge.node) ?? [];
  const error = open.error;
  return (
    <div className="page">
      <header className="page-head">
        <div>
          <h1>Tasks</h1>
          <p className="lede">Imports go on when you leave this page.</p>
        </div>
      </header>
      <section aria-labelledby="under-way" className="section">
        <h2 id="under-way" className="section-title">
          Under way
        </h2>
        {error && !open.data ? (
          <Note tone="bad" title="The tasks could not be listed" actions={<Button onClick={openAgain}>Try again</Button>}>
            <p>{describe(error)}</p>
          </Note>
        ) : !open.data ? (
          <>
            <Loading what="tasks" />
            <Skeleton kind="row" lines={2} />
          </>
        ) : running.length === 0 ? (
          <p className="muted quiet-line">Nothing is being imported now.</p>
        ) : (
          <ul className="task-list">
            {running.map((task) => (
              <li key={task.id}>
                <LiveRow
                  row={task}
                  onEnd={() => {
                    openAgain();
                    setRound((before) => before + 1);
                  }}
                />
              </li>
            ))}
          </ul>
        )}
        {(open.data?.importTasks?.count ?? 0) > 24 && (
          <p className="muted">{count((open.data?.importTasks?.count ?? 0) - 24, "more")} wait behind these.</p>
        )}
      </section>
      <section aria-labelledby="earlier" className="section">
        <div className="section-head">
          <h2 id="earlier" className="section-title">
            Earlier
          </h2>
          <div className="segments" role="group" aria-label="Which">
            {Object.entries(VIEWS).map(([name, { label }]) => (
              <button key={name} type="button" aria-pressed={name === view} onClick={() => navigate(name === "all" ? "/tasks" : `/tasks?show=${name}`, { replace: true })}>
                {label}
              </button>
            ))}
          </div>
        </div>
        <Earlier key={view} statuses={[...VIEWS[view].statuses]} round={round} narrowed={view !== "all"} />
      </section>
    </div>
  );
}

function Earlier({ statuses, round, narrowed }: { statuses: ImportTaskStatus[]; round: number; narrowed: boolean }): ReactElement {
  const [cursors, setCursors] = useState<string[]>([]);
  return (
    <ul className="task-list">
      {[null, ...cursors].map((after, index) => (
        <EarlierPage
          key={`${after ?? ""} ${round}`}
          statuses={statuses}
          after={after}
          narrowed={narrowed}
          isLast={index === cursors.length}
          onMore={(cursor) => setCursors([...cursors, cursor])}
        />
      ))}
    </ul>
  );
}

interface PageProps {
  statuses: ImportTaskStatus[];
  after: string | null;
  isLast: boolean;
  narrowed: boolean;
  onMore: (cursor: string) => void;
}

function EarlierPage({ statuses, after, isLast, narrowed, onMore }: PageProps): ReactElement {
  const [{ data, error }, again] = useData({ query: TasksDocument, variables: { first: 20, after, status: statuses, vfolderId: null } });
  useEvery(after === null ? 10_000 : null, again);
  const page = data?.importTasks;
  if (!page) {
    return (
      <li>
        {error ? (
          <Note tone="bad" title="These tasks could not be listed" actions={<Button onClick={again}>Try again</Button>}>
            <p>{describe(error)}</p>
          </Note>
        ) : (
          <Skeleton kind="row" lines={3} />
        )}
      </li>
    );
  }
  if (page.edges.length === 0 && after === null) {
    return (
      <li>
        {narrowed ? (
          <p className="muted quiet-line">None of these.</p>
        ) : (
          <Empty
            title="No imports yet"
            action={
              <Link href="/" className="button button-plain">
                Choose a model
              </Link>
            }
          >
            <p>What you import is listed here, with how it ended.</p>
          </Empty>
        )}
      </li>
    );
  }
  return (
    <>
      {page.edges.map(({ node }) => (
        <li key={node.id}>
          <TaskRow task={node} />
        </li>
      ))}
      {isLast && page.pageInfo.hasNextPage && (
        <li className="more">
          <Button onClick={() => onMore(page.pageInfo.endCursor ?? "")}>Show more</Button>
        </li>
      )}
    </>
  );
}

function LiveRow({ row, onEnd }: { row: Row; onEnd: () => void }): ReactElement {
  return <TaskRow task={useLiveTask(row, onEnd)} />;
}

export function TaskRow({ task }: { task: Row }): ReactElement {
  const me = useMe();
  const { perSecond, left } = usePace(task);
  const name = task.artifactRevision.artifact?.name ?? "a model";
  const total = task.bytesTotal === null ? null : Number(task.bytesTotal);
  const value = task.status === "PENDING" ? null : fraction(Number(task.bytesDone), total);
  const others = uuidOf(task.requestedBy.id) !== uuidOf(me.id);
  return (
    <article className="task-row">
      <div className="task-row-head">
        <h3>
          <Link href={`/tasks/${uuidOf(task.id)}`}>
            <Breakable text={name} />
            <span className="mono version">
              @<Breakable text={task.artifactRevision.version} />
            </span>
          </Link>
        </h3>
        <TaskStatusTag status={task.status} />
      </div>
      <p className="task-row-facts">
        <span className="clip">
          to {"vfolder" in task.destination ? <strong>{task.destination.vfolder.name}</strong> : <strong>the artifact storage</strong>}
        </span>
        {others && <span className="clip">by {task.requestedBy.email}</span>}
        {!isOpen(task.status) && task.bytesTotal !== null && <span className="mono">{bytes(task.bytesTotal)}</span>}
        <Time at={task.finishedAt ?? task.createdAt} />
      </p>
      {task.status === "RUNNING" && (
        <>
          <Progress value={task.step === "DOWNLOAD" || value === 1 ? value : null} label={`Import of ${name}`} />
          <p className="task-row-pace mono">
            <span>{task.step === "VERIFY" ? "Verifying" : task.step === "ARCHIVE" ? "Publishing" : value === null ? "Listing files" : `${Math.floor(value * 100)} %`}</span>
            <span>
              {bytes(task.bytesDone)}
              {task.bytesTotal !== null && ` of ${bytes(task.bytesTotal)}`}
            </span>
            {perSecond !== null && task.step === "DOWNLOAD" && <span>{perSecond === 0 ? "waiting for data" : rate(perSecond)}</span>}
            {left !== null && task.step === "DOWNLOAD" && <span>{duration(left)} left</span>}
          </p>
        </>
      )}
      {task.status === "NEEDS_APPROVAL" && <p className="task-row-error text-warn">The verifiers ask for somebody to look. An administrator decides.</p>}
      {task.error !== null && <p className="task-row-error text-bad">{errorText(task.error)}</p>}
    </article>
  );
}
