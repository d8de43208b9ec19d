/** What an administrator types into the scan box: a search term, a model's id, or a page of a hub. */

export type ScanTarget =
  | { kind: "search"; search: string }
  | { kind: "model"; modelId: string; revision: string | null };

const PART = "[A-Za-z0-9][A-Za-z0-9._-]{0,95}";
const MODEL = new RegExp(`^(${PART}/${PART})(?:@(\\S+))?$`);
// What a hub has at the place of an author, and is none.
const NOT_AUTHORS = new Set(["datasets", "spaces", "docs", "api", "models", "blog", "collections", "papers"]);

/**
 * Read what was typed. `org/name`, `org/name@revision` and the address of a model's page, or of a file or tree in it,
 * name a model; everything else is searched for.
 */
export function scanTarget(typed: string): ScanTarget {
  const text = typed.trim();
  if (/^https?:\/\//i.test(text)) {
    return modelAt(text) ?? { kind: "search", search: text };
  }
  const named = MODEL.exec(text);
  if (named?.[1] !== undefined) return { kind: "model", modelId: named[1], revision: named[2] ?? null };
  // An address copied without its scheme.
  if (/^[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?\/\S+\/\S+/i.test(text)) {
    const model = modelAt(`https://${text}`);
    if (model !== null) return model;
  }
  return { kind: "search", search: text };
}

function modelAt(address: string): ScanTarget | null {
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  let parts: string[];
  try {
    parts = url.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return null;
  }
  if (parts[0] === "models" || (parts[0] === "api" && parts[1] === "models")) {
    parts = parts.slice(parts.indexOf("models") + 1);
  }
  const [author, name, view, ...rest] = parts;
  if (author === undefined || name === undefined || NOT_AUTHORS.has(author)) return null;
  const modelId = `${author}/${name}`;
  if (!MODEL.test(modelId) || modelId.includes("@")) return null;
  const revision = view !== undefined && ["tree", "blob", "resolve", "raw", "commit", "commits"].includes(view) ? rest[0] : undefined;
  return { kind: "model", modelId, revision: revision ?? null };
}
