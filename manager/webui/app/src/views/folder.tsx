import { type ReactElement, useState } from "react";
import { Link, useSearch } from "wouter";

import { FolderByIdDocument, type FolderByIdQuery, FolderFilesDocument, FolderModelsDocument, type FolderModelsQuery, RoomDocument, TasksDocument } from "../graphql/generated";
import { useData, useEvery, useMe, useTitle } from "../hooks";
import { codeOf, describe } from "../lib/errors";
import { bytes, count, moment, shortCommit } from "../lib/format";
import { uuidOf } from "../lib/ids";
import { isOpen } from "../lib/standing";
import { Icon } from "../ui/icons";
import { Breakable, Button, Copy, CopyLine, Empty, Loading, Meter, Note, Skeleton, Tag, Time } from "../ui/parts";
import { PERMISSIONS, statusText } from "./folders";
import { NotFound } from "./not-found";
import { TaskRow } from "./tasks";

type Folder = NonNullable<FolderByIdQuery["vfolder"]>;
type Model = NonNullable<NonNullable<FolderModelsQuery["vfolder"]>["models"]>["edges"][number]["node"];

export function FolderView({ id }: { id: string }): ReactElement {
  const [{ data, error }, again] = useData({ query: FolderByIdDocument, variables: { id } });
  const folder = data?.vfolder;
  useTitle(folder?.name ?? "Folder");
  if (folder === undefined) {
    if (error && error.graphQLErrors.length > 0) return <NotFound title="There is no such folder">{describe(error)}</NotFound>;
    return (
      <div className="page">
        <Loading what="the folder" />
        <Skeleton kind="row" lines={1} />
        <Skeleton kind="card" lines={1} />
      </div>
    );
  }
  if (folder === null) return <NotFound title="There is no such folder">It may be somebody else's, or it was deleted.</NotFound>;
  return <FolderPage folder={folder} again={again} />;
}

function FolderPage({ folder, again }: { folder: Folder; again: () => void }): ReactElement {
  const me = useMe();
  const own = folder.quotaScopeId === `user:${uuidOf(me.id)}`;
  const writable = folder.permission !== "READ_ONLY" && (folder.status === "READY" || folder.status === "MOUNTED");
  const [models, modelsAgain] = useData({ query: FolderModelsDocument, variables: { id: folder.id, first: 50, after: null } });
  const [open, openAgain] = useData({ query: TasksDocument, variables: { first: 10, after: null, status: ["PENDING", "RUNNING", "NEEDS_APPROVAL"], vfolderId: folder.id } });
  const running = (open.data?.importTasks?.edges ?? []).map((edge) => edge.node);
  const [before, setBefore] = useState(0);
  useEvery(running.some((task) => isOpen(task.status)) ? 2000 : 10_000, openAgain);
  if (running.length !== before) {
    setBefore(running.length);
    if (running.length < before) {
      again();
      modelsAgain();
    }
  }
  return (
    <div className="page">
      <nav className="crumbs" aria-label="Breadcrumb">
        <Link href="/folders">
          <Icon name="back" size={14} />
          Folders
        </Link>
      </nav>
      <header className="folder-head">
        <div>
          <h1>
            <Breakable text={folder.name} />
            <Copy text={folder.name} label="Copy the folder's name" />
          </h1>
          <p className="folder-row-tags">
            {folder.usageMode === "MODEL" && <Tag tone="info">Models</Tag>}
            {folder.project && <Tag>Project {folder.project.name}</Tag>}
            {!own && !folder.project && <Tag>{me.isAdmin ? "Another user's" : "Shared with you"}</Tag>}
            <Tag>{PERMISSIONS[folder.permission]}</Tag>
            {folder.status !== "READY" && folder.status !== "MOUNTED" && <Tag tone="warn">{statusText(folder.status)}</Tag>}
            <span className="mono muted small">{folder.host}</span>
          </p>
        </div>
        <FolderUsage folder={folder} own={own} />
      </header>

      {running.length > 0 && (
        <section className="section" aria-labelledby="arriving">
          <h2 id="arriving" className="section-title">
            Arriving
          </h2>
          <ul className="task-list">
            {running.map((task) => (
              <li key={task.id}>
                <TaskRow task={task} />
              </li>
            ))}
          </ul>
        </section>
      )}

      <section className="section" aria-labelledby="models">
        <h2 id="models" className="section-title">
          Models
        </h2>
        <FolderModels folder={folder} state={models} again={modelsAgain} writable={writable} />
      </section>

      <Files folder={folder} />

      {writable && (
        <section className="section" aria-labelledby="by-command">
          <h2 id="by-command" className="section-title">
            From the command line
          </h2>
          <CopyLine text={`stowage import ORG/NAME --to ${folder.name}`} label="Copy the command that imports into this folder" />
        </section>
      )}
    </div>
  );
}

function FolderUsage({ folder, own }: { folder: Folder; own: boolean }): ReactElement {
  const me = useMe();
  const [{ data: room }] = useData({
    query: RoomDocument,
    variables: folder.project ? { host: folder.host, projectId: folder.project.id, userId: null } : { host: folder.host, userId: me.id, projectId: null },
    pause: !own && folder.project === null,
  });
  const quota = room?.quota;
  return (
    <div className="folder-usage">
      <p className="folder-usage-big mono">{folder.usage === null ? "–" : bytes(folder.usage.usedBytes)}</p>
      <p className="muted small">
        {folder.usage === null ? "The storage does not answer now" : folder.usage.fileCount === null ? "in this folder" : `in ${count(folder.usage.fileCount, "file")}`}
      </p>
      {quota && quota.limitBytes !== null && (
        <>
          <Meter
            used={Number(quota.usedBytes ?? 0)}
            extra={Number(quota.reservedBytes)}
            limit={Number(quota.limitBytes)}
            label={`Quota: ${bytes(quota.usedBytes ?? 0)} of ${bytes(quota.limitBytes)} used`}
          />
          <p className="muted small mono">
            {bytes(quota.availableBytes ?? 0)} free of {bytes(quota.limitBytes)}
            {folder.project ? ", all folders of the project" : ", all your folders"}
          </p>
        </>
      )}
      {quota && quota.limitBytes === null && <p className="muted small">no limit</p>}
      {!quota && folder.usage?.limitBytes != null && <p className="muted small mono">quota of {bytes(folder.usage.limitBytes)}</p>}
    </div>
  );
}

interface ModelsProps {
  folder: Folder;
  state: ReturnType<typeof useData<FolderModelsQuery, { id: string; first: number; after?: string | null }>>[0];
  again: () => void;
  writable: boolean;
}

function FolderModels({ folder, state, again, writable }: ModelsProps): ReactElement {
  const models = state.data?.vfolder?.models;
  if (models === undefined && !state.error) return <Skeleton kind="row" lines={2} />;
  if (models === null || models === undefined) {
    return (
      <Note tone="warn" title="The models in it are not known now" actions={<Button onClick={again}>Ask again</Button>}>
        <p>{state.error ? describe(state.error) : "The folder's storage does not answer. The files are where they were."}</p>
      </Note>
    );
  }
  if (models.edges.length === 0) {
    return (
      <Empty
        title="No model in this folder"
        action={
          writable ? (
            <Link href="/" className="button button-plain">
              Choose a model
            </Link>
          ) : undefined
        }
      >
        <p>A model that is imported leaves a manifest, and is listed here with where it came from.</p>
      </Empty>
    );
  }
  return (
    <>
      <ul className="provenance">
        {models.edges.map(({ node }) => (
          <li key={`${node.path} ${node.artifact}@${node.version}`}>
            <Provenance folder={folder} model={node} />
          </li>
        ))}
      </ul>
      {models.count > models.edges.length && <p className="muted">{count(models.count - models.edges.length, "more model")} further down.</p>}
    </>
  );
}

function Provenance({ folder, model }: { folder: Folder; model: Model }): ReactElement {
  const command = `stowage import ${model.artifact}@${model.version} --to ${folder.name}`;
  return (
    <article className="provenance-card">
      <h3>
        <Breakable text={model.artifact} />
        <span className="mono version">
          @<Breakable text={model.version} />
        </span>
      </h3>
      <p className="provenance-line">
        <span className="mono">{bytes(model.size)}</span>
        <span>{count(model.fileCount, "file")}</span>
        <span>
          from <strong>{model.registry}</strong>
        </span>
        <Copy text={model.commit} label="Copy the commit">
          <code>{shortCommit(model.commit)}</code>
        </Copy>
        <span>
          <Time at={model.importedAt} />
          {model.importedBy !== null && <> by <span className="break">{model.importedBy}</span></>}
        </span>
        <Link href={`/tasks/${model.taskId}`}>Its import</Link>
      </p>
      <div className="provenance-copies">
        <div>
          <p className="label">Path in the folder</p>
          <CopyLine text={model.path} label="Copy the path" />
        </div>
        <div>
          <p className="label">Command</p>
          <CopyLine text={command} label="Copy the command that imports it again" />
        </div>
      </div>
    </article>
  );
}

function Files({ folder }: { folder: Folder }): ReactElement {
  const path = new URLSearchParams(useSearch()).get("path") ?? "";
  const [{ data, error, stale, fetching }, again] = useData({ query: FolderFilesDocument, variables: { id: folder.id, path: path === "" ? null : path } });
  const parts = path.split("/").filter(Boolean);
  const entries = [...(data?.vfolderFiles ?? [])].sort(
    (one, other) => Number(other.isDirectory) - Number(one.isDirectory) || one.path.localeCompare(other.path, "en", { numeric: true }),
  );
  const shown = error && !fetching ? [] : entries;
  const to = (place: string): string => `/folders/${uuidOf(folder.id)}${place === "" ? "" : `?path=${encodeURIComponent(place)}`}`;
  return (
    <section className="section" aria-labelledby="files">
      <h2 id="files" className="section-title">
        Files
      </h2>
      <div className="panel">
        <div className="panel-head files-head">
          <nav aria-label="Path in the folder" className="path">
            <ol>
              <li>{parts.length === 0 ? <span aria-current="page">{folder.name}</span> : <Link href={to("")}>{folder.name}</Link>}</li>
              {parts.map((part, index) => {
                const place = parts.slice(0, index + 1).join("/");
                return (
                  <li key={place}>
                    {index === parts.length - 1 ? (
                      <span aria-current="page">{part}</span>
                    ) : (
                      <Link href={to(place)}>{part}</Link>
                    )}
                  </li>
                );
              })}
            </ol>
          </nav>
          {parts.length > 0 && <Copy text={parts.join("/")} label="Copy this path" />}
        </div>
        {error && !fetching ? (
          codeOf(error) === "NOT_FOUND" ? (
            <p className="muted quiet-line">There is nothing at this path.</p>
          ) : (
            <Note tone="warn" title="The files could not be listed" actions={<Button onClick={again}>Try again</Button>}>
              <p>{describe(error)}</p>
            </Note>
          )
        ) : data === undefined ? (
          <Skeleton kind="row" lines={3} />
        ) : shown.length === 0 ? (
          <p className="muted quiet-line">{parts.length === 0 ? "The folder is empty." : "This directory is empty."}</p>
        ) : (
          <table className={stale ? "table files stale" : "table files"}>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col" className="end">
                  Size
                </th>
                <th scope="col" className="end">
                  Changed
                </th>
              </tr>
            </thead>
            <tbody>
              {parts.length > 0 && (
                <tr>
                  <td colSpan={3}>
                    <Link href={to(parts.slice(0, -1).join("/"))} className="file-name">
                      <Icon name="folder" />
                      <span aria-hidden="true">..</span>
                      <span className="visually-hidden">The directory above</span>
                    </Link>
                  </td>
                </tr>
              )}
              {shown.map((file) => {
                const name = file.path.split("/").at(-1) ?? file.path;
                return (
                  <tr key={file.path}>
                    <th scope="row">
                      {file.isDirectory ? (
                        <Link href={to(file.path)} className="file-name">
                          <Icon name="folder" />
                          <Breakable text={name} />
                        </Link>
                      ) : (
                        <span className="file-name">
                          <Icon name="file" />
                          <Breakable text={name} />
                        </span>
                      )}
                    </th>
                    <td className="end mono">{file.isDirectory ? <span className="muted">–</span> : bytes(file.size)}</td>
                    <td className="end muted">
                      <span title={moment(file.modifiedAt)}>
                        <Time at={file.modifiedAt} />
                      </span>
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        )}
      </div>
    </section>
  );
}
