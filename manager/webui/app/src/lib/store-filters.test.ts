import { expect, test } from "vitest";

import { artifactFilter, isNarrowed, readFilters, writeFilters } from "./store-filters";

test("what is written is read again", () => {
  const filters = { search: "tiny bert & co", type: "MODEL", registry: "hub", status: "available", sort: "largest" } as const;
  expect(readFilters(writeFilters(filters))).toEqual(filters);
});

test("no filters are no query", () => {
  expect(writeFilters(readFilters(""))).toBe("");
  expect(isNarrowed(readFilters("sort=largest"))).toBe(false);
  expect(isNarrowed(readFilters("status=failed"))).toBe(true);
});

test("what is no choice is left out", () => {
  expect(readFilters("type=car&status=toString&sort=__proto__&registry=")).toEqual({ search: "", type: null, registry: null, status: null, sort: "name" });
});

test("each word must be in the name, and what was deleted is not listed", () => {
  expect(artifactFilter(readFilters("q=+tiny++BERT&status=running&registry=hub"))).toEqual({
    availability: ["ALIVE"],
    registry: { equals: "hub" },
    revisionStatus: ["PULLING", "PULLED", "VERIFYING"],
    AND: [{ name: { iContains: "tiny" } }, { name: { iContains: "BERT" } }],
  });
});
