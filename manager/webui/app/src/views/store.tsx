import { type ReactElement, type ReactNode, useDeferredValue, useEffect, useId, useMemo, useState } from "react";
import { useQuery } from "urql";
import { Link, useSearch } from "wouter";
import { navigate } from "wouter/use-browser-location";

import { type ArtifactFilter, type ArtifactOrderBy, type ArtifactType, RegistriesDocument, StoreDocument, type StoreQuery } from "../graphql/generated";
import { useData, useMe, useSettled, useTitle } from "../hooks";
import { describe } from "../lib/errors";
import { bytes, count } from "../lib/format";
import { nameParts, uuidOf } from "../lib/ids";
import { artifactFilter, isNarrowed, readFilters, SORTS, type SortName, STATUS_CHOICES, type StatusChoice, type StoreFilters, writeFilters } from "../lib/store-filters";
import { Icon, StowPlan } from "../ui/icons";
import { ArtifactStatusTag, Breakable, Button, Empty, Loading, Note, Skeleton, Verified } from "../ui/parts";
import { ScanBox } from "./scan";

const PAGE = 24;

type Listed = NonNullable<StoreQuery["artifacts"]>["edges"][number]["node"];

export function StoreView(): ReactElement {
  useTitle("Model Store");
  const me = useMe();
  const query = useSearch();
  const filters = useMemo(() => readFilters(query), [query]);
  const [typed, setTyped] = useState(filters.search);
  const settled = useSettled(typed, 200);
  const change = (changed: Partial<StoreFilters>): void => {
    const written = writeFilters({ ...filters, ...changed });
    navigate(written === "" ? "/" : `/?${written}`, { replace: true });
  };
  useEffect(() => {
    // The address follows the typing; the typing follows the back button.
    if (settled === typed && settled !== filters.search) change({ search: settled });
  }, [settled]);
  useEffect(() => setTyped((now) => (now.trim() === filters.search.trim() ? now : filters.search)), [filters.search]);

  const asked = useMemo(() => artifactFilter(filters), [filters]);
  const order = useMemo<ArtifactOrderBy[]>(() => [SORTS[filters.sort].order], [filters.sort]);
  const key = useDeferredValue(JSON.stringify([asked, order]));
  const [afters, setAfters] = useState<{ key: string; cursors: string[] }>({ key, cursors: [] });
  const cursors = afters.key === key ? afters.cursors : [];
  const [scanning, setScanning] = useState(false);

  return (
    <div className="page">
      <header className="page-head">
        <div>
          <h1>Model Store</h1>
          <p className="lede">Find a model, choose a folder, see it arrive whole and verified.</p>
        </div>
        {me.isAdmin && (
          <Button icon={scanning ? "cross" : "plus"} onClick={() => setScanning(!scanning)}>
            {scanning ? "Close" : "Scan the registry"}
          </Button>
        )}
      </header>
      {me.isAdmin && scanning && <ScanBox />}
      <search className="filters">
        <div className="search">
          <Icon name="search" />
          <input
            type="search"
            aria-label="Search models by name"
            placeholder="Search by name or author"
            autoComplete="off"
            spellCheck={false}
            value={typed}
            onChange={(event) => setTyped(event.target.value)}
          />
        </div>
        <Choice label="Type" value={filters.type ?? ""} onChange={(type) => change({ type: (type || null) as ArtifactType | null })}>
          <option value="">Any</option>
          <option value="MODEL">Models</option>
          <option value="PACKAGE">Packages</option>
          <option value="IMAGE">Images</option>
        </Choice>
        <RegistryChoice value={filters.registry} onChange={(registry) => change({ registry })} />
        <Choice label="Status" value={filters.status ?? ""} onChange={(status) => change({ status: (status || null) as StatusChoice | null })}>
          <option value="">Any</option>
          {Object.entries(STATUS_CHOICES).map(([name, { label }]) => (
            <option key={name} value={name}>
              {label}
            </option>
          ))}
        </Choice>
        <Choice label="Sort" value={filters.sort} onChange={(sort) => change({ sort: sort as SortName })}>
          {Object.entries(SORTS).map(([name, { label }]) => (
            <option key={name} value={name}>
              {label}
            </option>
          ))}
        </Choice>
      </search>
      <ResultCount filter={asked} order={order} />
      {[undefined, ...cursors].map((after) => (
        <ModelPage
          key={`${key} ${after ?? ""}`}
          filter={asked}
          order={order}
          after={after}
          isLast={after === cursors.at(-1)}
          onMore={(cursor) => setAfters({ key, cursors: [...cursors, cursor] })}
          empty={
            isNarrowed(filters) ? (
              <Empty
                title="No model fits"
                action={
                  <Button
                    onClick={() => {
                      setTyped("");
                      navigate("/", { replace: true });
                    }}
                  >
                    Clear search and filters
                  </Button>
                }
              >
                <p>
                  {me.isAdmin
                    ? "Nothing in the catalogue has all of this. The registry may have it: scan it."
                    : "Nothing in the catalogue has all of this. An administrator can scan the registry for it."}
                </p>
              </Empty>
            ) : (
              <Empty
                title="The catalogue is empty"
                action={
                  me.isAdmin && !scanning ? (
                    <Button kind="primary" icon="plus" onClick={() => setScanning(true)}>
                      Scan the registry
                    </Button>
                  ) : undefined
                }
              >
                <p>{me.isAdmin ? "Scan the registry to bring its models into the catalogue." : "An administrator fills it by scanning the registry."}</p>
              </Empty>
            )
          }
        />
      ))}
    </div>
  );
}

function Choice({ label, value, onChange, children }: { label: string; value: string; onChange: (value: string) => void; children: ReactNode }): ReactElement {
  const id = useId();
  return (
    <div className="choice">
      <label htmlFor={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => onChange(event.target.value)}>
        {children}
      </select>
      <Icon name="down" size={12} />
    </div>
  );
}

function RegistryChoice({ value, onChange }: { value: string | null; onChange: (value: string | null) => void }): ReactElement {
  const [{ data }] = useQuery({ query: RegistriesDocument });
  const names = useMemo(() => {
    const found = new Set<string>();
    if (data?.defaultArtifactRegistry) found.add(data.defaultArtifactRegistry.name);
    for (const { node } of data?.artifacts?.edges ?? []) if (node.registry.name !== null) found.add(node.registry.name);
    if (value !== null) found.add(value);
    return [...found].sort();
  }, [data, value]);
  return (
    <Choice label="Registry" value={value ?? ""} onChange={(name) => onChange(name || null)}>
      <option value="">Any</option>
      {names.map((name) => (
        <option key={name} value={name}>
          {name}
        </option>
      ))}
    </Choice>
  );
}

function ResultCount({ filter, order }: { filter: ArtifactFilter; order: ArtifactOrderBy[] }): ReactElement {
  const [{ data, stale }] = useQuery({ query: StoreDocument, variables: { first: PAGE, after: null, filter, orderBy: order }, requestPolicy: "cache-first" });
  const total = data?.artifacts?.count;
  return (
    <p className="result-count" role="status">
      {total === undefined ? " " : total === 0 ? "" : count(total, "model")}
      {stale && <span className="visually-hidden">, looking again</span>}
    </p>
  );
}

interface PageProps {
  filter: ArtifactFilter;
  order: ArtifactOrderBy[];
  after: string | undefined;
  isLast: boolean;
  onMore: (cursor: string) => void;
  empty: ReactElement;
}

function ModelPage({ filter, order, after, isLast, onMore, empty }: PageProps): ReactElement {
  const [{ data, error, fetching }, again] = useData({
    query: StoreDocument,
    variables: { first: PAGE, after: after ?? null, filter, orderBy: order },
  });
  const page = data?.artifacts;
  if (error && !page) {
    return (
      <Note tone="bad" title="The models could not be listed" actions={<Button onClick={again}>Try again</Button>}>
        <p>{describe(error)}</p>
      </Note>
    );
  }
  if (!page) {
    return (
      <>
        <Loading what="models" />
        <div className="cards">{fetching && <Skeleton kind="card" lines={6} />}</div>
      </>
    );
  }
  if (page.edges.length === 0) return after === undefined ? empty : <></>;
  return (
    <>
      <ul className="cards">
        {page.edges.map(({ node }) => (
          <li key={node.id}>
            <ModelCard model={node} />
          </li>
        ))}
      </ul>
      {isLast && page.pageInfo.hasNextPage && (
        <div className="more">
          <Button onClick={() => onMore(page.pageInfo.endCursor ?? "")}>Show more models</Button>
        </div>
      )}
    </>
  );
}

function ModelCard({ model }: { model: Listed }): ReactElement {
  const { author, model: name } = nameParts(model.name);
  const revisions = (model.revisions?.edges ?? []).map((edge) => edge.node);
  const latest = latestOf(revisions);
  const stored = revisions.find((revision) => revision.status === "AVAILABLE");
  const shown = latest === undefined || latest.status === "SCANNED" ? (stored ?? latest) : latest;
  const checks = shown?.verificationResult?.verifiers ?? [];
  const verified = shown?.status === "AVAILABLE" && checks.length > 0 && checks.every((verifier) => verifier.result.success);
  const others = (model.revisions?.count ?? 0) - 1;
  const tags = tagsOf(model.extra);
  return (
    <article className="card">
      <div className="card-head">
        <StowPlan name={model.name} />
        <div className="card-name">
          <p className="card-author">{author === "" ? " " : <Breakable text={author} />}</p>
          <h2>
            <Link href={`/models/${uuidOf(model.id)}`}>
              <Breakable text={name} />
            </Link>
          </h2>
        </div>
        {verified && <Verified />}
      </div>
      <p className="card-about">{model.description ?? ""}</p>
      <ul className="card-tags" aria-label="Tags">
        {tags.map((tag) => (
          <li key={tag}>{tag}</li>
        ))}
      </ul>
      <dl className="card-foot">
        <div>
          <dt>Latest</dt>
          <dd className="mono clip" title={latest?.version}>
            {latest?.version ?? "none"}
            {others > 0 && <span className="muted"> +{others}</span>}
          </dd>
        </div>
        <div>
          <dt>Size</dt>
          <dd className="mono">{latest?.size ? bytes(latest.size) : <span className="muted">to be seen</span>}</dd>
        </div>
        <div>
          <dt className="visually-hidden">Status</dt>
          <dd>{shown && <ArtifactStatusTag status={shown.status} />}</dd>
        </div>
      </dl>
    </article>
  );
}

/** The revision that most people mean: the main branch, else the one that changed last. */
export function latestOf<Revision extends { version: string; updatedAt: string | null }>(revisions: readonly Revision[]): Revision | undefined {
  return (
    revisions.find((revision) => revision.version === "main") ??
    revisions.find((revision) => revision.version === "master") ??
    [...revisions].sort((one, other) => (other.updatedAt ?? "").localeCompare(one.updatedAt ?? ""))[0]
  );
}

/** The first tags that a registry gives; what is no text is none. */
export function tagsOf(extra: unknown, most = 4): string[] {
  if (typeof extra !== "object" || extra === null || !("tags" in extra) || !Array.isArray(extra.tags)) return [];
  return extra.tags.filter((tag): tag is string => typeof tag === "string" && tag.length <= 40 && !tag.includes(":")).slice(0, most);
}
