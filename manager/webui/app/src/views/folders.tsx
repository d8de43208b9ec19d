import { type FormEvent, type ReactElement, useRef, useState } from "react";
import { useClient, useQuery } from "urql";
import { Link } from "wouter";
import { navigate } from "wouter/use-browser-location";

import { CreateFolderDocument, FoldersDocument, type FoldersQuery, RoomDocument, VolumesDocument } from "../graphql/generated";
import { useData, useFaultFocus, useMe, useSettled, useTitle } from "../hooks";
import { describe, formErrors, type FormErrors, NO_ERRORS } from "../lib/errors";
import { bytes, count } from "../lib/format";
import { uuidOf } from "../lib/ids";
import { nameFault } from "../lib/import-form";
import { Dialog } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Breakable, Button, Empty, Field, Loading, Meter, Note, Skeleton, Tag } from "../ui/parts";

type Row = NonNullable<FoldersQuery["vfolders"]>["edges"][number]["node"];

export const PERMISSIONS = { READ_ONLY: "Read only", READ_WRITE: "Read and write", RW_DELETE: "Read, write, delete" } as const;

export function FoldersView(): ReactElement {
  useTitle("Folders");
  const [typed, setTyped] = useState("");
  const search = useSettled(typed.trim(), 250);
  const [creating, setCreating] = useState(false);
  const [pages, setPages] = useState<{ search: string; cursors: string[] }>({ search: "", cursors: [] });
  const cursors = pages.search === search ? pages.cursors : [];
  return (
    <div className="page">
      <header className="page-head">
        <div>
          <h1>Folders</h1>
          <p className="lede">Yours, your projects', and those that others share with you.</p>
        </div>
        <Button icon="plus" onClick={() => setCreating(true)}>
          New folder
        </Button>
      </header>
      <MyRoom />
      <search className="filters folder-filters">
        <div className="search">
          <Icon name="search" />
          <input type="search" aria-label="Search folders by name" placeholder="Search by name" value={typed} onChange={(event) => setTyped(event.target.value)} />
        </div>
      </search>
      <ul className="folder-list">
        {[null, ...cursors].map((after, index) => (
          <FolderPage
            key={`${search} ${after ?? ""}`}
            search={search}
            after={after}
            isLast={index === cursors.length}
            onMore={(cursor) => setPages({ search, cursors: [...cursors, cursor] })}
            onCreate={() => setCreating(true)}
          />
        ))}
      </ul>
      {creating && <NewFolderDialog onClose={() => setCreating(false)} />}
    </div>
  );
}

/** What the caller's own quota leaves, on the default volume. */
function MyRoom(): ReactElement {
  const me = useMe();
  const [{ data }] = useData({ query: RoomDocument, variables: { userId: me.id, projectId: null, host: null } });
  if (!data || data.quota.limitBytes === null) return <></>;
  const { usedBytes, limitBytes, reservedBytes, availableBytes } = data.quota;
  const label = `${bytes(usedBytes ?? 0)} of ${bytes(limitBytes)} used${Number(reservedBytes) > 0 ? `, ${bytes(reservedBytes)} on its way` : ""}`;
  return (
    <section className="my-room panel" aria-label="My quota">
      <p>
        <span className="label">My quota</span>
        <span className="mono">{label}</span>
        <span className="muted mono">{bytes(availableBytes ?? 0)} free</span>
      </p>
      <Meter used={Number(usedBytes ?? 0)} extra={Number(reservedBytes)} limit={Number(limitBytes)} label={label} />
    </section>
  );
}

interface PageProps {
  search: string;
  after: string | null;
  isLast: boolean;
  onMore: (cursor: string) => void;
  onCreate: () => void;
}

function FolderPage({ search, after, isLast, onMore, onCreate }: PageProps): ReactElement {
  const [{ data, error }, again] = useData({ query: FoldersDocument, variables: { first: 20, after, search: search || null } });
  const page = data?.vfolders;
  if (!page) {
    return (
      <li>
        {error ? (
          <Note tone="bad" title="The folders could not be listed" actions={<Button onClick={again}>Try again</Button>}>
            <p>{describe(error)}</p>
          </Note>
        ) : (
          <>
            <Loading what="folders" />
            <Skeleton kind="row" lines={3} />
          </>
        )}
      </li>
    );
  }
  if (page.edges.length === 0 && after === null) {
    return (
      <li>
        {search === "" ? (
          <Empty
            title="No folder yet"
            action={
              <Button kind="primary" icon="plus" onClick={onCreate}>
                New folder
              </Button>
            }
          >
            <p>A folder keeps models where your sessions mount them. You can also make one while you import.</p>
          </Empty>
        ) : (
          <Empty title="No folder of this name" />
        )}
      </li>
    );
  }
  return (
    <>
      {page.edges.map(({ node }) => (
        <li key={node.id}>
          <FolderRow folder={node} />
        </li>
      ))}
      {isLast && page.pageInfo.hasNextPage && (
        <li className="more">
          <Button onClick={() => onMore(page.pageInfo.endCursor ?? "")}>Show more folders</Button>
        </li>
      )}
    </>
  );
}

function FolderRow({ folder }: { folder: Row }): ReactElement {
  const me = useMe();
  const own = folder.quotaScopeId === `user:${uuidOf(me.id)}`;
  return (
    <article className="folder-row">
      <Icon name="folder" size={20} />
      <div className="folder-row-main">
        <h2>
          <Link href={`/folders/${uuidOf(folder.id)}`}>
            <Breakable text={folder.name} />
          </Link>
        </h2>
        <p className="folder-row-tags">
          {folder.usageMode === "MODEL" && <Tag tone="info">Models</Tag>}
          {folder.project && <Tag>Project {folder.project.name}</Tag>}
          {!own && !folder.project && <Tag>{me.isAdmin ? "Another user's" : "Shared"}</Tag>}
          {!own && <Tag>{PERMISSIONS[folder.permission]}</Tag>}
          {folder.status !== "READY" && folder.status !== "MOUNTED" && <Tag tone="warn">{statusText(folder.status)}</Tag>}
          <span className="mono muted small">{folder.host}</span>
        </p>
      </div>
      <div className="folder-row-usage">
        {folder.usage === null ? (
          <span className="muted">Usage not known now</span>
        ) : (
          <>
            <span className="mono">{bytes(folder.usage.usedBytes)}</span>
            {folder.usage.fileCount !== null && <span className="muted small">{count(folder.usage.fileCount, "file")}</span>}
          </>
        )}
      </div>
    </article>
  );
}

/** A status of a folder in words. */
export function statusText(status: string): string {
  const words = status.toLowerCase().replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function NewFolderDialog({ onClose }: { onClose: () => void }): ReactElement {
  const client = useClient();
  const [{ data }] = useQuery({ query: VolumesDocument });
  const volumes = data?.volumes ?? [];
  const [name, setName] = useState("");
  const [host, setHost] = useState("");
  const [forModels, setForModels] = useState(true);
  const [busy, setBusy] = useState(false);
  const [errors, setErrors] = useState<FormErrors>(NO_ERRORS);
  const form = useRef<HTMLFormElement>(null);
  const focusFault = useFaultFocus(form);
  const refuse = (refused: FormErrors): void => {
    setErrors(refused);
    focusFault();
  };
  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (busy) return;
    const fault = nameFault(name);
    if (fault !== null) return refuse({ fields: { name: fault } });
    setBusy(true);
    const made = await client.mutation(CreateFolderDocument, { input: { name, usageMode: forModels ? "MODEL" : "GENERAL", host: host || null } });
    setBusy(false);
    if (made.error || !made.data) return refuse(formErrors(made.error, { "input.name": "name", "input.host": "host" }));
    onClose();
    navigate(`/folders/${uuidOf(made.data.createVfolder.vfolder.id)}`);
  };
  return (
    <Dialog title="New folder" closable={!busy} onClose={onClose}>
      <form ref={form} className="dialog-form" onSubmit={(event) => void submit(event)} noValidate>
        <div className="dialog-body stack">
          {errors.form !== undefined && (
            <Note tone="bad" title="The folder was not made">
              <p>{errors.form}</p>
            </Note>
          )}
          <Field label="Name" error={errors.fields["name"]} hint="Letters, digits, dots, hyphens and underscores.">
            {(props) => (
              <input
                {...props}
                name="folder-name"
                autoComplete="off"
                autoCapitalize="off"
                spellCheck={false}
                autoFocus
                value={name}
                onChange={(event) => {
                  setName(event.target.value);
                  setErrors(NO_ERRORS);
                }}
              />
            )}
          </Field>
          {(volumes.length > 1 || errors.fields["host"]) && (
            <Field label="Volume" error={errors.fields["host"]}>
              {(props) => (
                <select {...props} value={host} onChange={(event) => setHost(event.target.value)}>
                  <option value="">The default</option>
                  {volumes.map((volume) => (
                    <option key={volume.host} value={volume.host}>
                      {volume.host}
                    </option>
                  ))}
                </select>
              )}
            </Field>
          )}
          <label className="check">
            <input type="checkbox" checked={forModels} onChange={(event) => setForModels(event.target.checked)} />
            <span>
              For models <span className="muted">(offered first when you import)</span>
            </span>
          </label>
        </div>
        <div className="dialog-foot">
          <Button onClick={onClose} disabled={busy}>
            Cancel
          </Button>
          <Button kind="primary" type="submit" busy={busy}>
            Make folder
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
