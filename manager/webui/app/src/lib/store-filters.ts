/** The catalogue's filters: kept in the address, so that a reload, a link and the back button keep them too. */

import type { ArtifactFilter, ArtifactOrderBy, ArtifactStatus, ArtifactType } from "../graphql/generated";

export const SORTS = {
  name: { label: "Name", order: { field: "NAME", direction: "ASC" } },
  updated: { label: "Recently changed", order: { field: "UPDATED_AT", direction: "DESC" } },
  scanned: { label: "Recently scanned", order: { field: "SCANNED_AT", direction: "DESC" } },
  largest: { label: "Largest first", order: { field: "SIZE", direction: "DESC" } },
  smallest: { label: "Smallest first", order: { field: "SIZE", direction: "ASC" } },
} as const satisfies Record<string, { label: string; order: ArtifactOrderBy }>;

export type SortName = keyof typeof SORTS;

export const STATUS_CHOICES = {
  available: { label: "In storage", statuses: ["AVAILABLE"] },
  running: { label: "On its way to storage", statuses: ["PULLING", "PULLED", "VERIFYING"] },
  approval: { label: "Needs approval", statuses: ["NEEDS_APPROVAL"] },
  scanned: { label: "In registry only", statuses: ["SCANNED"] },
  failed: { label: "Failed or rejected", statuses: ["FAILED", "REJECTED"] },
} as const satisfies Record<string, { label: string; statuses: readonly ArtifactStatus[] }>;

export type StatusChoice = keyof typeof STATUS_CHOICES;

const TYPES: readonly ArtifactType[] = ["MODEL", "PACKAGE", "IMAGE"];

export interface StoreFilters {
  search: string;
  type: ArtifactType | null;
  registry: string | null;
  status: StatusChoice | null;
  sort: SortName;
}

/** Read the address's query; what is no choice is left out. */
export function readFilters(query: string): StoreFilters {
  const given = new URLSearchParams(query);
  const type = given.get("type")?.toUpperCase();
  const status = given.get("status");
  const sort = given.get("sort");
  return {
    search: given.get("q") ?? "",
    type: TYPES.find((each) => each === type) ?? null,
    registry: given.get("registry") || null,
    status: status !== null && Object.hasOwn(STATUS_CHOICES, status) ? (status as StatusChoice) : null,
    sort: sort !== null && Object.hasOwn(SORTS, sort) ? (sort as SortName) : "name",
  };
}

/** Write the address's query, empty for no filters. */
export function writeFilters(filters: StoreFilters): string {
  const query = new URLSearchParams();
  if (filters.search !== "") query.set("q", filters.search);
  if (filters.type !== null) query.set("type", filters.type.toLowerCase());
  if (filters.registry !== null) query.set("registry", filters.registry);
  if (filters.status !== null) query.set("status", filters.status);
  if (filters.sort !== "name") query.set("sort", filters.sort);
  return query.toString();
}

/** Whether anything narrows the list. */
export function isNarrowed(filters: StoreFilters): boolean {
  return filters.search.trim() !== "" || filters.type !== null || filters.registry !== null || filters.status !== null;
}

/** Express the filters for the API: each word typed must be in the name. */
export function artifactFilter(filters: StoreFilters): ArtifactFilter {
  const words = filters.search.trim().split(/\s+/).filter(Boolean).slice(0, 8);
  return {
    availability: ["ALIVE"],
    ...(filters.type === null ? {} : { type: [filters.type] }),
    ...(filters.registry === null ? {} : { registry: { equals: filters.registry } }),
    ...(filters.status === null ? {} : { revisionStatus: [...STATUS_CHOICES[filters.status].statuses] }),
    ...(words.length === 0 ? {} : { AND: words.map((word) => ({ name: { iContains: word } })) }),
  };
}
