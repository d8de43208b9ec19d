import { type FormEvent, type ReactElement, useEffect, useId, useMemo, useReducer, useRef, useState } from "react";
import { useClient, useQuery } from "urql";
import { navigate } from "wouter/use-browser-location";

import {
  CreateFolderDocument,
  type FolderFragment,
  ImportDocument,
  PreviewDocument,
  type PreviewQuery,
  RoomDocument,
  VolumesDocument,
  WritableFoldersDocument,
} from "../graphql/generated";
import { useData, useFaultFocus, useMe, useSettled } from "../hooks";
import { formErrors, type FormErrors, sentence } from "../lib/errors";
import { bytes, count } from "../lib/format";
import { uuidOf } from "../lib/ids";
import { byUse, defaultPath, emptyForm, folderNameFor, importForm, nameFault, previewInput } from "../lib/import-form";
import { announce } from "../ui/announce";
import { Dialog } from "../ui/dialog";
import { Icon } from "../ui/icons";
import { Breakable, Button, Field, FieldError, Loading, Meter, Note, Skeleton, Tag } from "../ui/parts";
import type { Revision } from "./model";

/** What the API calls its inputs, and what the form does. */
const IMPORT_FIELDS = {
  "input.artifactRevisionIds": "revision",
  "input.artifactRevisionId": "revision",
  "input.vfolderId": "folder",
  "input.options.path": "path",
};
const FOLDER_FIELDS = { "input.name": "name", "input.host": "host" };

interface Props {
  modelName: string;
  revisions: Pick<Revision, "id" | "version" | "size" | "digest">[];
  revisionId: string;
  onClose: () => void;
}

export function ImportDialog({ modelName, revisions, revisionId, onClose }: Props): ReactElement {
  const client = useClient();
  const me = useMe();
  const [form, act] = useReducer(importForm, emptyForm(revisionId, folderNameFor(modelName)));
  const [busy, setBusy] = useState(false);
  const [made, setMade] = useState<FolderFragment[]>([]);
  const body = useRef<HTMLFormElement>(null);
  const focusFault = useFaultFocus(body);
  const revision = revisions.find((each) => each.id === form.revisionId);
  const isNew = form.target === "new";

  const path = useSettled(form.path, 400);
  const asked = previewInput({ ...form, path });
  const [{ data: seen, error: previewError, fetching, stale }] = useData({
    query: PreviewDocument,
    variables: { input: asked ?? { artifactRevisionId: "", vfolderId: "" } },
    pause: asked === null,
  });
  const looking = fetching || stale || path !== form.path;
  const preview = asked === null || previewError ? null : (seen?.importPreview ?? null);
  const previewErrors = formErrors(asked === null ? undefined : previewError, IMPORT_FIELDS);
  const shownErrors: FormErrors = { ...form.errors, fields: { ...previewErrors.fields, ...form.errors.fields } };

  const refuse = (errors: FormErrors): void => {
    act({ kind: "refused", errors });
    setBusy(false);
    focusFault();
  };

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (busy) return;
    if (form.target === null) return refuse({ fields: { folder: "Choose a folder, or make a new one." } });
    let folder = form.target;
    if (form.target === "new") {
      const fault = nameFault(form.newName);
      if (fault !== null) return refuse({ fields: { name: fault } });
      setBusy(true);
      // A folder that cannot take the model is not made.
      const room = await client.query(RoomDocument, { host: form.newHost || null, userId: me.id, projectId: null });
      const free = room.data?.quota.availableBytes ?? null;
      const needed = revision?.size ?? null;
      if (free !== null && needed !== null && Number(needed) > Number(free)) {
        return refuse({ fields: { folder: `Your quota leaves ${bytes(free)}, and the model needs ${bytes(needed)}. Remove something, or ask for a larger quota.` } });
      }
      const { data, error } = await client.mutation(CreateFolderDocument, {
        input: { name: form.newName, usageMode: "MODEL", host: form.newHost || null },
      });
      if (error || !data) return refuse(formErrors(error, FOLDER_FIELDS));
      // From here on there is such a folder, whatever becomes of the import.
      const vfolder = data.createVfolder.vfolder;
      setMade((before) => [...before, vfolder]);
      act({ kind: "made", folder: vfolder.id });
      folder = vfolder.id;
    }
    setBusy(true);
    const typed = form.path.trim();
    const { data, error } = await client.mutation(ImportDocument, {
      input: {
        artifactRevisionIds: [form.revisionId],
        vfolderId: folder,
        options: { ...(typed === "" ? {} : { path: typed }), ...(form.overwrite ? { onConflict: "OVERWRITE" } : {}) },
      },
    });
    const task = data?.importArtifacts?.tasks[0];
    if (error || !task?.taskId) {
      const errors = formErrors(error, IMPORT_FIELDS);
      // A sum over quota is the folder's affair.
      if (errors.code === "QUOTA_EXCEEDED" && errors.form !== undefined) {
        const { form: said, ...rest } = errors;
        return refuse({ ...rest, fields: { ...errors.fields, folder: said } });
      }
      return refuse(errors);
    }
    announce("The import has begun");
    onClose();
    navigate(`/tasks/${uuidOf(task.taskId)}`);
  };

  const blocked = preview !== null && (!preview.fits || (preview.conflicts.length > 0 && !form.overwrite));
  const why = useId();

  return (
    <Dialog
      size="large"
      closable={!busy}
      onClose={onClose}
      title={
        <>
          <span className="dialog-kicker">Import to my folder</span>
          <Breakable text={modelName} />
        </>
      }
    >
      <form ref={body} className="dialog-form" onSubmit={(event) => void submit(event)} noValidate>
        <div className="dialog-body stack">
          {shownErrors.form !== undefined && (
            <Note tone="bad" title="It did not start">
              <p>{shownErrors.form}</p>
            </Note>
          )}
          {revisions.length > 1 ? (
            <Field label="Revision" error={shownErrors.fields["revision"]}>
              {(props) => (
                <select {...props} value={form.revisionId} onChange={(event) => act({ kind: "revision", id: event.target.value })}>
                  {revisions.map((each) => (
                    <option key={each.id} value={each.id}>
                      {each.version}
                      {each.size === null ? "" : `, ${bytes(each.size)}`}
                    </option>
                  ))}
                </select>
              )}
            </Field>
          ) : (
            shownErrors.fields["revision"] && <FieldError id="import-revision">{shownErrors.fields["revision"]}</FieldError>
          )}
          <FolderChoice
            target={form.target}
            made={made}
            error={shownErrors.fields["folder"]}
            onTarget={(target) => act({ kind: "target", target })}
          />
          {isNew && (
            <NewFolder
              name={form.newName}
              host={form.newHost}
              errors={shownErrors}
              size={revision?.size ?? null}
              onName={(name) => act({ kind: "name", name })}
              onHost={(host) => act({ kind: "host", host })}
            />
          )}
          <Field
            label="Path in the folder"
            optional
            error={shownErrors.fields["path"]}
            hint={
              <>
                Left empty: <code className="break">{defaultPath(modelName, revision?.version ?? "")}</code>. A single slash means the folder itself.
              </>
            }
          >
            {(props) => (
              <input
                {...props}
                className="mono"
                name="path"
                autoComplete="off"
                autoCapitalize="off"
                spellCheck={false}
                placeholder={defaultPath(modelName, revision?.version ?? "")}
                value={form.path}
                onChange={(event) => act({ kind: "path", path: event.target.value })}
              />
            )}
          </Field>
          <div aria-live="polite">
            {previewErrors.form !== undefined && !fetching && (
              <Note tone="warn" title="What is in the folder is not known now">
                <p>{previewErrors.form}</p>
              </Note>
            )}
            {asked !== null && looking && preview === null && (
              <div className="preview">
                <Loading what="what is in the folder" />
                <Skeleton lines={2} />
              </div>
            )}
            {preview !== null && (
              <PreviewPanel preview={preview} stale={looking} overwrite={form.overwrite} onOverwrite={(overwrite) => act({ kind: "overwrite", overwrite })} />
            )}
          </div>
        </div>
        <div className="dialog-foot">
          <p id={why} className="dialog-why">
            {blocked && !preview.fits
              ? "It does not fit into the quota."
              : blocked
                ? "Choose another path, or replace what is in the way."
                : revision?.size && preview === null
                  ? `${bytes(revision.size)} in all`
                  : ""}
          </p>
          <Button onClick={onClose} disabled={busy}>
            Cancel
          </Button>
          <Button kind="primary" type="submit" icon="download" busy={busy} disabled={blocked} describedBy={why}>
            {isNew ? "Make folder and import" : "Import"}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function FolderChoice({ target, made, error, onTarget }: { target: string | null; made: FolderFragment[]; error: string | undefined; onTarget: (target: string) => void }): ReactElement {
  const id = useId();
  const [typed, setTyped] = useState("");
  const search = useSettled(typed.trim(), 250);
  const [after, setAfter] = useState<{ search: string; cursors: string[] }>({ search: "", cursors: [] });
  const [first] = useData({ query: WritableFoldersDocument, variables: { first: 1, after: null, search: null, usageMode: null } });
  const total = first.data?.vfolders?.count ?? 0;
  // Those for models come first, however many others there are.
  const [models, again] = useData({ query: WritableFoldersDocument, variables: { first: 50, after: null, search: search || null, usageMode: "MODEL" } });
  const cursors = after.search === search ? after.cursors : [];
  const [others] = useData({
    query: WritableFoldersDocument,
    variables: { first: 50, after: cursors.at(-1) ?? null, search: search || null, usageMode: null },
  });
  const folders = useMemo(() => {
    const found = new Map<string, FolderFragment>();
    for (const folder of made) found.set(folder.id, folder);
    for (const { node } of models.data?.vfolders?.edges ?? []) found.set(node.id, node);
    for (const { node } of others.data?.vfolders?.edges ?? []) found.set(node.id, node);
    return byUse([...found.values()].filter((folder) => folder.status === "READY" || folder.status === "MOUNTED"));
  }, [made, models.data, others.data]);
  const page = others.data?.vfolders?.pageInfo;
  const failed = (models.error ?? others.error) && folders.length === 0;

  // A person with no folder at all makes one.
  const loaded = models.data !== undefined && others.data !== undefined;
  const chose = useRef(false);
  useEffect(() => {
    if (!loaded || chose.current || target !== null || search !== "") return;
    chose.current = true;
    const only = folders.length === 1 ? folders[0] : undefined;
    if (folders.length === 0) onTarget("new");
    else if (only !== undefined) onTarget(only.id);
  }, [loaded, folders, target, search, onTarget]);

  return (
    <fieldset className={error ? "field field-wrong" : "field"} aria-describedby={error ? `${id}-error` : undefined}>
      <legend>Folder</legend>
      {total > 8 && (
        <div className="search search-small">
          <Icon name="search" size={14} />
          <input type="search" aria-label="Search your folders" placeholder="Search your folders" value={typed} onChange={(event) => setTyped(event.target.value)} />
        </div>
      )}
      {error && <FieldError id={`${id}-error`}>{error}</FieldError>}
      <div className="options" role="group" aria-label="Folders you may write to">
        {!loaded && !failed && <Skeleton kind="row" lines={2} />}
        {failed && (
          <Note tone="bad" title="Your folders could not be listed" actions={<Button onClick={again}>Try again</Button>} />
        )}
        {folders.map((folder) => (
          <label key={folder.id} className="option">
            <input
              type="radio"
              name="folder"
              value={folder.id}
              checked={target === folder.id}
              aria-invalid={error && (target === null || target === folder.id) ? true : undefined}
              onChange={() => onTarget(folder.id)}
            />
            <span className="option-main">
              <span className="option-name">
                <Breakable text={folder.name} />
                {folder.usageMode === "MODEL" && <Tag tone="info">Models</Tag>}
                {folder.project && <Tag>{folder.project.name}</Tag>}
              </span>
              <span className="muted small mono">{folder.host}</span>
            </span>
            <Room folder={folder} />
          </label>
        ))}
        {loaded && folders.length === 0 && search !== "" && <p className="muted quiet-line">No folder of this name.</p>}
        {page?.hasNextPage === true && (
          <Button kind="quiet" onClick={() => setAfter({ search, cursors: [...cursors, page.endCursor ?? ""] })}>
            More folders
          </Button>
        )}
        <label className="option option-new">
          <input
            type="radio"
            name="folder"
            value="new"
            checked={target === "new"}
            aria-invalid={error && target === "new" ? true : undefined}
            onChange={() => onTarget("new")}
          />
          <span className="option-main">
            <span className="option-name">
              <Icon name="plus" size={14} />
              New folder for models
            </span>
          </span>
        </label>
      </div>
    </fieldset>
  );
}

/** What the quota leaves where the folder counts; nothing where the caller may not see it. */
function Room({ folder }: { folder: FolderFragment }): ReactElement {
  const me = useMe();
  const own = folder.quotaScopeId === `user:${uuidOf(me.id)}`;
  const [{ data }] = useQuery({
    query: RoomDocument,
    variables: folder.project ? { host: folder.host, projectId: folder.project.id, userId: null } : { host: folder.host, userId: me.id, projectId: null },
    pause: !own && folder.project === null,
  });
  if (!data) return <></>;
  return <span className="option-room">{data.quota.availableBytes === null ? "No limit" : `${bytes(data.quota.availableBytes)} free`}</span>;
}

interface NewFolderProps {
  name: string;
  host: string;
  size: string | null;
  errors: FormErrors;
  onName: (name: string) => void;
  onHost: (host: string) => void;
}

function NewFolder({ name, host, size, errors, onName, onHost }: NewFolderProps): ReactElement {
  const me = useMe();
  const [{ data }] = useQuery({ query: VolumesDocument });
  const volumes = data?.volumes ?? [];
  const [{ data: room }] = useQuery({ query: RoomDocument, variables: { host: host || null, userId: me.id, projectId: null } });
  const free = room?.quota.availableBytes ?? null;
  const tight = free !== null && size !== null && Number(size) > Number(free);
  return (
    <div className="new-folder stack">
      <Field
        label="Name of the new folder"
        error={errors.fields["name"]}
        hint={free === null ? undefined : <span className={tight ? "text-bad" : undefined}>Your quota there leaves {bytes(free)}{tight ? ", which is less than the model needs." : "."}</span>}
      >
        {(props) => (
          <input
            {...props}
            name="folder-name"
            autoComplete="off"
            autoCapitalize="off"
            spellCheck={false}
            autoFocus
            maxLength={200}
            value={name}
            onChange={(event) => onName(event.target.value)}
          />
        )}
      </Field>
      {volumes.length > 1 || errors.fields["host"] ? (
        <Field label="Volume" error={errors.fields["host"]}>
          {(props) => (
            <select {...props} value={host} onChange={(event) => onHost(event.target.value)}>
              <option value="">The default</option>
              {volumes.map((volume) => (
                <option key={volume.host} value={volume.host}>
                  {volume.host}
                  {volume.totalBytes !== null && volume.usedBytes !== null ? `, ${bytes(Number(volume.totalBytes) - Number(volume.usedBytes))} free` : ""}
                </option>
              ))}
            </select>
          )}
        </Field>
      ) : null}
    </div>
  );
}

interface PreviewProps {
  preview: PreviewQuery["importPreview"];
  stale: boolean;
  overwrite: boolean;
  onOverwrite: (overwrite: boolean) => void;
}

const SHOWN_CONFLICTS = 5;

function PreviewPanel({ preview, stale, overwrite, onOverwrite }: PreviewProps): ReactElement {
  const [all, setAll] = useState(false);
  const { quota } = preview;
  const missing = Number(preview.missing);
  const conflicts = all ? preview.conflicts : preview.conflicts.slice(0, SHOWN_CONFLICTS);
  const used = Number(quota.used ?? 0) + Number(quota.reserved);
  return (
    <div className={stale ? "preview preview-stale" : "preview"}>
      <dl className="preview-facts">
        <div>
          <dt>To fetch</dt>
          <dd className="mono">{preview.alreadyThere ? "nothing" : bytes(preview.missing)}</dd>
        </div>
        <div>
          <dt>Model</dt>
          <dd className="mono">{bytes(preview.size)}</dd>
        </div>
        <div>
          <dt>Quota leaves</dt>
          <dd className="mono">{quota.free === null ? "no limit" : bytes(quota.free)}</dd>
        </div>
      </dl>
      {quota.limit !== null && (
        <Meter
          used={used}
          extra={missing}
          limit={Number(quota.limit)}
          label={`${bytes(used)} of ${bytes(quota.limit)} used, this import brings ${bytes(missing)}`}
        />
      )}
      {!preview.fits && (
        <p className="preview-line text-bad">
          <Icon name="alert" size={14} />
          {quota.free === null
            ? "It does not fit into the quota."
            : `It needs ${bytes(missing)}, and the quota leaves ${bytes(quota.free)}. Remove something, choose another folder, or ask for more.`}
        </p>
      )}
      {preview.alreadyThere && (
        <p className="preview-line">
          <Icon name="check" size={14} />
          All of it is there already. Importing again checks it, and fetches nothing.
        </p>
      )}
      {!preview.alreadyThere && missing < Number(preview.size) && preview.conflicts.length === 0 && (
        <p className="preview-line">
          <Icon name="check" size={14} />A part is there already, and is not fetched again.
        </p>
      )}
      {preview.conflicts.length > 0 && (
        <div className="conflicts">
          <p className="preview-line text-warn">
            <Icon name="alert" size={14} />
            {preview.truncated ? "More than " : ""}
            {count(preview.conflicts.length, "file is", "files are")} in the way.
          </p>
          <ul>
            {conflicts.map((conflict) => (
              <li key={conflict.path}>
                <code className="break">
                  <Breakable text={conflict.path} />
                </code>
                <span className="muted">{sentence(conflict.reason)}</span>
              </li>
            ))}
          </ul>
          {preview.conflicts.length > SHOWN_CONFLICTS && (
            <Button kind="quiet" onClick={() => setAll(!all)}>
              {all ? "Show fewer" : `Show all ${preview.conflicts.length}`}
            </Button>
          )}
          <label className="check">
            <input type="checkbox" checked={overwrite} disabled={stale} onChange={(event) => onOverwrite(event.target.checked)} />
            <span>Replace them with the model's files</span>
          </label>
        </div>
      )}
    </div>
  );
}
