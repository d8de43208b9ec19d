import { type ReactElement, useEffect, useId, useRef, useState } from "react";
import { useQuery } from "urql";
import { Link } from "wouter";

import { ModelDocument, type ModelQuery, ReadmeDocument, RevisionTasksDocument } from "../graphql/generated";
import { useData, useEvery, useMe, useTitle } from "../hooks";
import { describe } from "../lib/errors";
import { bytes, count, shortCommit } from "../lib/format";
import { nameParts, uuidOf } from "../lib/ids";
import { readReport } from "../lib/verification";
import { isOpen } from "../lib/standing";
import { Icon, StowPlan } from "../ui/icons";
import { ArtifactStatusTag, Breakable, Button, Copy, Empty, Loading, Note, Skeleton, Tag, TaskStatusTag, Time, Verified } from "../ui/parts";
import { VerificationReport } from "../ui/report";
import { ImportDialog } from "./import-dialog";
import { NotFound } from "./not-found";
import { latestOf, tagsOf } from "./store";
import { StorageDialog } from "./storage-dialog";

type Model = NonNullable<ModelQuery["artifact"]>;
export type Revision = NonNullable<Model["revisions"]>["edges"][number]["node"];

const RUNNING = new Set(["PULLING", "PULLED", "VERIFYING"]);

export function ModelView({ id }: { id: string }): ReactElement {
  const [{ data, error }, again] = useData({ query: ModelDocument, variables: { id } });
  const model = data?.artifact;
  useTitle(model?.name ?? "Model");
  const running = model?.revisions?.edges.some((edge) => RUNNING.has(edge.node.status)) ?? false;
  useEvery(running ? 3000 : null, again);
  if (model === undefined) {
    if (error && error.graphQLErrors.length > 0) return <NotFound title="There is no such model">{describe(error)}</NotFound>;
    return (
      <div className="page">
        <Loading what="the model" />
        <Skeleton kind="row" lines={1} />
        <Skeleton kind="card" lines={2} />
      </div>
    );
  }
  if (model === null) {
    return <NotFound title="There is no such model">It may have been removed from the catalogue, or the address is misspelt.</NotFound>;
  }
  return <ModelPage model={model} again={again} />;
}

function ModelPage({ model, again }: { model: Model; again: () => void }): ReactElement {
  const me = useMe();
  const { author, model: name } = nameParts(model.name);
  const revisions = (model.revisions?.edges ?? []).map((edge) => edge.node);
  const latest = latestOf(revisions);
  const [chosen, setChosen] = useState<string | null>(null);
  const [dialog, setDialog] = useState<{ kind: "folder" | "storage"; revision: string } | null>(null);
  const shown = revisions.find((revision) => revision.id === chosen) ?? latest;
  const deleted = model.availability === "DELETED";
  const tags = tagsOf(model.extra, 12);
  const source = pageOf(model.source.url, model.name);
  return (
    <div className="page">
      <nav className="crumbs" aria-label="Breadcrumb">
        <Link href="/">
          <Icon name="back" size={14} />
          Model Store
        </Link>
      </nav>
      <header className="model-head">
        <StowPlan name={model.name} />
        <div className="model-title">
          <h1>
            {author !== "" && (
              <span className="model-author">
                <Breakable text={author} />
                <span className="slash">/</span>
                <wbr />
              </span>
            )}
            <Breakable text={name} />
            <Copy text={model.name} label="Copy the model's name" />
          </h1>
          {model.description && <p className="lede">{model.description}</p>}
          {tags.length > 0 && (
            <ul className="card-tags" aria-label="Tags">
              {tags.map((tag) => (
                <li key={tag}>{tag}</li>
              ))}
            </ul>
          )}
        </div>
        {latest !== undefined && !deleted && (
          <div className="model-actions">
            <Button kind="primary" icon="download" onClick={() => setDialog({ kind: "folder", revision: (shown ?? latest).id })}>
              Import to my folder
            </Button>
            {me.mayStore && (
              <Button onClick={() => setDialog({ kind: "storage", revision: (shown ?? latest).id })}>Import to the artifact storage</Button>
            )}
          </div>
        )}
      </header>
      {deleted && (
        <Note tone="warn" title="This model was taken out of use">
          <p>It stays here to be seen, and cannot be imported until an administrator restores it.</p>
        </Note>
      )}
      <div className="model-body">
        <section className="panel" aria-labelledby="revisions">
          <div className="panel-head">
            <h2 id="revisions">Revisions</h2>
            <span className="muted">{model.revisions?.count ?? 0}</span>
          </div>
          {revisions.length === 0 ? (
            <Empty title="No revision yet">
              <p>The registry listed the model without any. An administrator can scan it again.</p>
            </Empty>
          ) : (
            <RevisionTable
              revisions={revisions}
              chosen={shown?.id}
              importable={!deleted}
              onRead={setChosen}
              onImport={(revision) => setDialog({ kind: "folder", revision })}
            />
          )}
        </section>
        <section className="panel readme-panel" aria-labelledby="readme">
          <div className="panel-head">
            <h2 id="readme">Readme</h2>
            {shown && <span className="mono muted clip">{shown.version}</span>}
          </div>
          {shown && <Readme key={shown.id} id={shown.id} />}
        </section>
        <aside className="facts" aria-label="About this model">
          <dl>
            <div>
              <dt>Type</dt>
              <dd>{{ MODEL: "Model", PACKAGE: "Package", IMAGE: "Image" }[model.type]}</dd>
            </div>
            <div>
              <dt>Registry</dt>
              <dd>{model.registry.name ?? "unknown"}</dd>
            </div>
            {source !== null && (
              <div>
                <dt>Origin</dt>
                <dd>
                  <a href={source} target="_blank" rel="noopener noreferrer nofollow" className="break">
                    {new URL(source).host}
                    <Icon name="link" size={12} />
                  </a>
                </dd>
              </div>
            )}
            <div>
              <dt>Scanned</dt>
              <dd>
                <Time at={model.scannedAt} />
              </dd>
            </div>
            <div>
              <dt>Changed</dt>
              <dd>
                <Time at={model.updatedAt} />
              </dd>
            </div>
          </dl>
          {shown && <RecentImports revision={shown} />}
        </aside>
      </div>
      {dialog?.kind === "folder" && (
        <ImportDialog
          modelName={model.name}
          revisions={revisions}
          revisionId={dialog.revision}
          onClose={() => setDialog(null)}
        />
      )}
      {dialog?.kind === "storage" && (
        <StorageDialog
          modelName={model.name}
          revisions={revisions}
          revisionId={dialog.revision}
          onClose={() => {
            setDialog(null);
            again();
          }}
        />
      )}
    </div>
  );
}

/** The model's page at a registry that people can visit. */
function pageOf(base: string | null, name: string): string | null {
  if (base === null || !/^https?:\/\//.test(base)) return null;
  try {
    return new URL(name.split("/").map(encodeURIComponent).join("/"), base.endsWith("/") ? base : `${base}/`).href;
  } catch {
    return null;
  }
}

const AT_FIRST = 6;

interface TableProps {
  revisions: Revision[];
  chosen: string | undefined;
  importable: boolean;
  onRead: (id: string) => void;
  onImport: (id: string) => void;
}

function RevisionTable({ revisions, chosen, importable, onRead, onImport }: TableProps): ReactElement {
  const [all, setAll] = useState(false);
  const [open, setOpen] = useState<string | null>(null);
  const shown = all ? revisions : revisions.slice(0, AT_FIRST);
  return (
    <>
      <table className="table revisions">
        <thead>
          <tr>
            <th scope="col">Revision</th>
            <th scope="col">Commit</th>
            <th scope="col" className="end">
              Size
            </th>
            <th scope="col">Storage</th>
            <th scope="col">Verification</th>
            <th scope="col">
              <span className="visually-hidden">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {shown.map((revision) => (
            <RevisionRow
              key={revision.id}
              revision={revision}
              current={revision.id === chosen && revisions.length > 1}
              several={revisions.length > 1}
              importable={importable}
              open={open === revision.id}
              onOpen={() => setOpen(open === revision.id ? null : revision.id)}
              onRead={() => onRead(revision.id)}
              onImport={() => onImport(revision.id)}
            />
          ))}
        </tbody>
      </table>
      {revisions.length > AT_FIRST && (
        <div className="table-more">
          <Button kind="quiet" onClick={() => setAll(!all)}>
            {all ? "Show fewer" : `Show all ${revisions.length}`}
          </Button>
        </div>
      )}
    </>
  );
}

interface RowProps {
  revision: Revision;
  current: boolean;
  several: boolean;
  importable: boolean;
  open: boolean;
  onOpen: () => void;
  onRead: () => void;
  onImport: () => void;
}

function RevisionRow({ revision, current, several, importable, open, onOpen, onRead, onImport }: RowProps): ReactElement {
  const id = useId();
  const report = revision.verificationResult === null ? null : readReport(revision.verificationResult);
  return (
    <>
      <tr className={current ? "current" : undefined}>
        <th scope="row" data-label="Revision">
          {several ? (
            <button type="button" className="link mono" aria-pressed={current} title="Show its readme" onClick={onRead}>
              <Breakable text={revision.version} />
            </button>
          ) : (
            <span className="mono">
              <Breakable text={revision.version} />
            </span>
          )}
        </th>
        <td data-label="Commit">
          {revision.digest === null ? (
            <span className="muted">not known</span>
          ) : (
            <Copy text={revision.digest} label="Copy the commit">
              <code>{shortCommit(revision.digest)}</code>
            </Copy>
          )}
        </td>
        <td data-label="Size" className="end mono">
          {revision.size === null ? <span className="muted">to be seen</span> : bytes(revision.size)}
        </td>
        <td data-label="Storage">
          <ArtifactStatusTag status={revision.status} />
        </td>
        <td data-label="Verification">
          {report === null ? (
            <span className="muted">when imported</span>
          ) : (
            <button type="button" className="disclose" aria-expanded={open} aria-controls={id} onClick={onOpen}>
              {report.verdict === "clean" && revision.status === "AVAILABLE" ? (
                <Verified />
              ) : (
                <Tag tone={report.verdict === "blocked" ? "bad" : report.verdict === "clean" ? "ok" : "warn"}>
                  {report.findings.length > 0 ? count(report.findings.length, "finding") : report.verdict}
                </Tag>
              )}
              <Icon name={open ? "down" : "right"} size={12} />
            </button>
          )}
        </td>
        <td className="end">
          {importable && (
            <Button kind="quiet" icon="download" onClick={onImport}>
              Import<span className="visually-hidden"> {revision.version}</span>
            </Button>
          )}
        </td>
      </tr>
      {open && report !== null && (
        <tr className="detail" id={id}>
          <td colSpan={6}>
            <VerificationReport report={report} />
          </td>
        </tr>
      )}
    </>
  );
}

function Readme({ id }: { id: string }): ReactElement {
  const [{ data, error, fetching }] = useQuery({ query: ReadmeDocument, variables: { id } });
  const text = data?.artifactRevision?.readme;
  const [render, setRender] = useState<((readme: string) => DocumentFragment) | null>(null);
  // The renderer did not come, after an update perhaps: the text itself can be read as well.
  const [plain, setPlain] = useState(false);
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let wanted = true;
    import("../lib/markdown").then(
      ({ renderMarkdown }) => {
        if (wanted) setRender(() => renderMarkdown);
      },
      () => {
        if (wanted) setPlain(true);
      },
    );
    return () => {
      wanted = false;
    };
  }, []);
  useEffect(() => {
    if (text && render !== null) place.current?.replaceChildren(render(text));
  }, [text, render]);
  if (error) return <Note tone="bad" title="The readme could not be read"><p>{describe(error)}</p></Note>;
  if (data !== undefined && !fetching && !text) {
    return <p className="muted quiet-line">The registry has no readme for this revision.</p>;
  }
  return (
    <>
      {plain ? <pre className="plain-readme">{text}</pre> : (text === undefined || render === null) && <Skeleton lines={5} />}
      <div className="prose" ref={place} />
    </>
  );
}

function RecentImports({ revision }: { revision: Revision }): ReactElement {
  const [{ data }] = useData({ query: RevisionTasksDocument, variables: { id: revision.id } });
  const tasks = data?.importTasks?.edges.map((edge) => edge.node) ?? [];
  if (tasks.length === 0) return <></>;
  return (
    <div className="recent">
      <h2 className="label">Imports you can see</h2>
      <ul>
        {tasks.map((task) => (
          <li key={task.id}>
            <Link href={`/tasks/${uuidOf(task.id)}`} className="clip">
              {"vfolder" in task.destination ? task.destination.vfolder.name : "Artifact storage"}
            </Link>
            {isOpen(task.status) || task.status === "FAILED" ? <TaskStatusTag status={task.status} /> : <Time at={task.finishedAt ?? task.createdAt} />}
          </li>
        ))}
      </ul>
    </div>
  );
}
