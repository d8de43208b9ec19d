import { expect, test } from "vitest";

import type { FolderFragment } from "../graphql/generated";
import { byUse, defaultPath, emptyForm, folderNameFor, importForm, nameFault, previewInput } from "./import-form";

const begun = emptyForm("r1", "bert");

test("nothing that was typed is dropped by another choice", () => {
  let form = importForm(begun, { kind: "target", target: "new" });
  form = importForm(form, { kind: "name", name: "mine" });
  form = importForm(form, { kind: "path", path: "models/bert" });
  form = importForm(form, { kind: "target", target: "f1" });
  form = importForm(form, { kind: "revision", id: "r2" });
  form = importForm(form, { kind: "target", target: "new" });
  expect(form).toMatchObject({ revisionId: "r2", target: "new", newName: "mine", path: "models/bert" });
});

test("a refusal keeps every field, and goes where it is answered", () => {
  let form = importForm({ ...begun, target: "new", newName: "taken", path: "a" }, { kind: "refused", errors: { form: "No.", fields: { name: "Taken.", path: "Wrong." } } });
  expect(form).toMatchObject({ target: "new", newName: "taken", path: "a" });
  form = importForm(form, { kind: "name", name: "free" });
  expect(form.errors).toEqual({ fields: { path: "Wrong." } });
});

test("replacing is agreed to for what was shown, and for nothing else", () => {
  const agreed = importForm({ ...begun, target: "f1" }, { kind: "overwrite", overwrite: true });
  expect(agreed.overwrite).toBe(true);
  expect(importForm(agreed, { kind: "path", path: "x" }).overwrite).toBe(false);
  expect(importForm(agreed, { kind: "target", target: "f2" }).overwrite).toBe(false);
  expect(importForm(agreed, { kind: "revision", id: "r2" }).overwrite).toBe(false);
});

test("a folder that was made is chosen from then on", () => {
  expect(importForm({ ...begun, target: "new" }, { kind: "made", folder: "f9" }).target).toBe("f9");
});

test("there is nothing to ask about without a folder, and no path unless one is typed", () => {
  expect(previewInput(begun)).toBeNull();
  expect(previewInput({ ...begun, target: "new" })).toBeNull();
  expect(previewInput({ ...begun, target: "f1", path: "  " })).toEqual({ artifactRevisionId: "r1", vfolderId: "f1" });
  expect(previewInput({ ...begun, target: "f1", path: " a/b " })).toEqual({ artifactRevisionId: "r1", vfolderId: "f1", options: { path: "a/b" } });
});

test.each([
  ["sample/tiny-bert", "tiny-bert"],
  ["org/..weird..name", "weird.name"],
  ["org/" + "x".repeat(96), "x".repeat(64)],
])("%s suggests %s", (model, name) => {
  expect(folderNameFor(model)).toBe(name);
  expect(nameFault(name)).toBeNull();
});

test.each(["", ".hidden", "a..b", "a/b", "a b", "x".repeat(65)])("%j is no folder's name", (name) => {
  expect(nameFault(name)).not.toBeNull();
});

test.each(["models", "größe_2", "a.b-c"])("%s is a folder's name", (name) => {
  expect(nameFault(name)).toBeNull();
});

test("a slash in a version is no directory", () => {
  expect(defaultPath("org/name", "refs/pr/1")).toBe("org/name/refs%2Fpr%2F1");
});

test("folders for models come first", () => {
  const folder = (name: string, usageMode: FolderFragment["usageMode"]): FolderFragment => ({ name, usageMode }) as FolderFragment;
  const sorted = byUse([folder("b", "GENERAL"), folder("z", "MODEL"), folder("a", "DATA"), folder("c", "MODEL")]);
  expect(sorted.map((each) => each.name)).toEqual(["c", "z", "a", "b"]);
});
