import { type FormEvent, type ReactElement, useRef, useState } from "react";
import { useClient, useQuery } from "urql";
import { Link } from "wouter";
import { navigate } from "wouter/use-browser-location";

import { AdminRegistriesDocument, ScanModelsDocument, ScanSearchDocument } from "../graphql/generated";
import { NO_ERRORS, formErrors, type FormErrors } from "../lib/errors";
import { count } from "../lib/format";
import { scanTarget } from "../lib/hub";
import { uuidOf } from "../lib/ids";
import { announce } from "../ui/announce";
import { Breakable, Button, Field, FieldError } from "../ui/parts";

const MOST = 20;

/** Where administrators bring models into the catalogue: a search, one model's name, or the address of its page. */
export function ScanBox(): ReactElement {
  const client = useClient();
  const [{ data: known }] = useQuery({ query: AdminRegistriesDocument });
  const registries = known?.huggingfaceRegistries?.edges.map((edge) => edge.node) ?? [];
  const [typed, setTyped] = useState("");
  const [registry, setRegistry] = useState("");
  const [busy, setBusy] = useState(false);
  const [errors, setErrors] = useState<FormErrors>(NO_ERRORS);
  const [found, setFound] = useState<{ id: string; name: string }[] | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const target = scanTarget(typed);

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setFound(null);
    setErrors(NO_ERRORS);
    const within = registry === "" ? null : registry;
    if (target.kind === "model") {
      const { data, error } = await client.mutation(ScanModelsDocument, {
        input: { models: [{ modelId: target.modelId, revision: target.revision }], registryId: within === null ? null : uuidOf(within) },
      });
      setBusy(false);
      const refused = formErrors(error, { "input.models": "what", "input.registryId": "registry" });
      const artifact = data?.scanArtifactModels?.artifactRevision.edges[0]?.node.artifact;
      if (error) refuse(refused);
      else if (artifact) {
        announce(`${artifact.name} is in the catalogue`);
        navigate(`/models/${uuidOf(artifact.id)}`);
      } else refuse({ fields: { what: "The registry has no revision of this model." } });
    } else {
      const { data, error } = await client.mutation(ScanSearchDocument, {
        input: { limit: MOST, search: target.search, registryId: within },
      });
      setBusy(false);
      const artifacts = data?.scanArtifacts?.artifacts ?? [];
      if (error) refuse(formErrors(error, { "input.search": "what", "input.registryId": "registry" }));
      else if (artifacts.length === 0) refuse({ fields: { what: "The registry finds nothing for this. Try another word, or a model's full name." } });
      else {
        setFound(artifacts);
        announce(`${count(artifacts.length, "model")} scanned`);
      }
    }
  };
  const refuse = (refused: FormErrors): void => {
    setErrors(refused);
    input.current?.focus();
  };

  return (
    <section className="panel scan" aria-label="Scan the registry">
      <form onSubmit={(event) => void submit(event)} noValidate>
        <div className="scan-row">
          <Field
            label="What to scan"
            error={errors.fields["what"] ?? errors.form}
            hint={
              typed.trim() === ""
                ? "A search term, a model such as org/name or org/name@revision, or the address of its page. Nothing typed scans the most downloaded."
                : target.kind === "model"
                  ? `One model: ${target.modelId}${target.revision === null ? ", all branches and tags" : ` at ${target.revision}`}.`
                  : `A search: the ${MOST} most downloaded models that the registry finds.`
            }
          >
            {(props) => (
              <input
                {...props}
                ref={input}
                name="scan"
                autoComplete="off"
                autoCapitalize="off"
                spellCheck={false}
                autoFocus
                value={typed}
                onChange={(event) => {
                  setTyped(event.target.value);
                  setErrors(NO_ERRORS);
                }}
              />
            )}
          </Field>
          {registries.length > 1 && (
            <Field label="Registry" error={errors.fields["registry"]}>
              {(props) => (
                <select {...props} value={registry} onChange={(event) => setRegistry(event.target.value)}>
                  <option value="">The default</option>
                  {registries.map((each) => (
                    <option key={each.id} value={each.id}>
                      {each.name}
                    </option>
                  ))}
                </select>
              )}
            </Field>
          )}
          <Button kind="primary" type="submit" busy={busy}>
            Scan
          </Button>
        </div>
        {registries.length <= 1 && errors.fields["registry"] && <FieldError id="scan-registry">{errors.fields["registry"]}</FieldError>}
      </form>
      {found !== null && (
        <div className="scan-found">
          <p className="label">{count(found.length, "model")} scanned</p>
          <ul>
            {found.map((artifact) => (
              <li key={artifact.id}>
                <Link href={`/models/${uuidOf(artifact.id)}`}>
                  <Breakable text={artifact.name} />
                </Link>
              </li>
            ))}
          </ul>
        </div>
      )}
    </section>
  );
}
