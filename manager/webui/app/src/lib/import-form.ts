/** What the import dialog holds. Nothing that was typed is ever dropped: each choice keeps its own text. */

import type { FolderFragment, ImportPreviewInput } from "../graphql/generated";
import { NO_ERRORS, type FormErrors } from "./errors";

export interface ImportForm {
  revisionId: string;
  /** The folder chosen, or "new" for one to be made. */
  target: string | "new" | null;
  newName: string;
  newHost: string;
  /** What was typed; empty means the default. */
  path: string;
  overwrite: boolean;
  errors: FormErrors;
}

export type ImportAction =
  | { kind: "revision"; id: string }
  | { kind: "target"; target: string | "new" }
  | { kind: "name"; name: string }
  | { kind: "host"; host: string }
  | { kind: "path"; path: string }
  | { kind: "overwrite"; overwrite: boolean }
  | { kind: "refused"; errors: FormErrors }
  /** The folder was made: from now on it is an existing one, whatever becomes of the import. */
  | { kind: "made"; folder: string };

export function emptyForm(revisionId: string, newName: string): ImportForm {
  return { revisionId, target: null, newName, newHost: "", path: "", overwrite: false, errors: NO_ERRORS };
}

export function importForm(form: ImportForm, action: ImportAction): ImportForm {
  switch (action.kind) {
    case "revision":
      return { ...form, revisionId: action.id, overwrite: false, errors: without(form.errors, "revision", "path") };
    case "target":
      return { ...form, target: action.target, overwrite: false, errors: without(form.errors, "folder", "path", "name", "host") };
    case "name":
      return { ...form, newName: action.name, errors: without(form.errors, "name") };
    case "host":
      return { ...form, newHost: action.host, errors: without(form.errors, "host") };
    case "path":
      return { ...form, path: action.path, overwrite: false, errors: without(form.errors, "path") };
    case "overwrite":
      return { ...form, overwrite: action.overwrite };
    case "refused":
      return { ...form, errors: action.errors };
    case "made":
      return { ...form, target: action.folder };
  }
}

function without(errors: FormErrors, ...names: string[]): FormErrors {
  return { fields: Object.fromEntries(Object.entries(errors.fields).filter(([name]) => !names.includes(name))) };
}

/** A name for a new folder: the model's, in the letters that a folder's name may have. */
export function folderNameFor(model: string): string {
  const name = (model.split("/").at(-1) ?? "").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/\.{2,}/g, ".").replace(/^[.-]+/, "");
  return name.slice(0, 64);
}

/** Say what is wrong with a folder's name before anybody is asked; null for a good one. The API's own rule. */
export function nameFault(name: string): string | null {
  if (name === "") return "Give the folder a name.";
  if (name.length > 64) return "A folder's name has at most 64 characters.";
  if (!/^(?!\.)(?!.*\.\.)[\p{L}\p{N}_.-]+$/u.test(name)) {
    return "A folder's name has letters, digits, dots, hyphens and underscores, begins with no dot and holds no two dots in a row.";
  }
  return null;
}

/** Where the files land without a path: a slash in a version would be another directory. */
export function defaultPath(model: string, version: string): string {
  return `${model}/${version.replaceAll("/", "%2F")}`;
}

/** What to ask about before anything starts; null where there is no folder to ask about. */
export function previewInput(form: ImportForm): ImportPreviewInput | null {
  if (form.target === null || form.target === "new") return null;
  const path = form.path.trim();
  return { artifactRevisionId: form.revisionId, vfolderId: form.target, ...(path === "" ? {} : { options: { path } }) };
}

/** Model folders first, then by name. */
export function byUse(folders: readonly FolderFragment[]): FolderFragment[] {
  return [...folders].sort(
    (one, other) =>
      Number(other.usageMode === "MODEL") - Number(one.usageMode === "MODEL") || one.name.localeCompare(other.name, "en"),
  );
}
