import { type FormEvent, type ReactElement, useState } from "react";
import { useClient } from "urql";
import { navigate } from "wouter/use-browser-location";

import { ImportDocument } from "../graphql/generated";
import { formErrors, type FormErrors, NO_ERRORS } from "../lib/errors";
import { bytes } from "../lib/format";
import { uuidOf } from "../lib/ids";
import { Dialog } from "../ui/dialog";
import { Breakable, Button, Field, Note } from "../ui/parts";
import type { Revision } from "./model";

interface Props {
  modelName: string;
  revisions: Pick<Revision, "id" | "version" | "size" | "status">[];
  revisionId: string;
  onClose: () => void;
}

/** Fills the installation's shared storage, from which everybody can take. */
export function StorageDialog({ modelName, revisions, revisionId, onClose }: Props): ReactElement {
  const client = useClient();
  const [chosen, setChosen] = useState(revisionId);
  const [force, setForce] = useState(false);
  const [busy, setBusy] = useState(false);
  const [held, setHeld] = useState(false);
  const [errors, setErrors] = useState<FormErrors>(NO_ERRORS);
  const revision = revisions.find((each) => each.id === chosen);

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setErrors(NO_ERRORS);
    const { data, error } = await client.mutation(ImportDocument, {
      input: { artifactRevisionIds: [chosen], ...(force ? { options: { force: true } } : {}) },
    });
    setBusy(false);
    if (error) return setErrors(formErrors(error, { "input.artifactRevisionIds": "revision" }));
    const task = data?.importArtifacts?.tasks[0];
    if (!task?.taskId) return setHeld(true);
    onClose();
    navigate(`/tasks/${uuidOf(task.taskId)}`);
  };

  return (
    <Dialog
      closable={!busy}
      onClose={onClose}
      title={
        <>
          <span className="dialog-kicker">Import to the artifact storage</span>
          <Breakable text={modelName} />
        </>
      }
    >
      <form className="dialog-form" onSubmit={(event) => void submit(event)} noValidate>
        <div className="dialog-body stack">
          {errors.form !== undefined && (
            <Note tone="bad" title="It did not start">
              <p>{errors.form}</p>
            </Note>
          )}
          <p>The artifact storage is shared: what is in it is there for everybody.</p>
          <Field label="Revision" error={errors.fields["revision"]}>
            {(props) => (
              <select
                {...props}
                value={chosen}
                onChange={(event) => {
                  setChosen(event.target.value);
                  setHeld(false);
                  setErrors(NO_ERRORS);
                }}
              >
                {revisions.map((each) => (
                  <option key={each.id} value={each.id}>
                    {each.version}
                    {each.size === null ? "" : `, ${bytes(each.size)}`}
                    {each.status === "AVAILABLE" ? ", in storage" : ""}
                  </option>
                ))}
              </select>
            )}
          </Field>
          {(held || revision?.status === "AVAILABLE") && (
            <>
              <Note tone="ok" title="The storage holds this commit already">
                <p>There is nothing to bring unless you have it fetched anew.</p>
              </Note>
              <label className="check">
                <input type="checkbox" checked={force} onChange={(event) => setForce(event.target.checked)} />
                <span>Fetch everything again</span>
              </label>
            </>
          )}
        </div>
        <div className="dialog-foot">
          <p className="dialog-why">{revision?.size ? `${bytes(revision.size)} in all` : ""}</p>
          <Button onClick={onClose} disabled={busy}>
            Cancel
          </Button>
          <Button kind="primary" type="submit" icon="download" busy={busy} disabled={held && !force}>
            Import
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
