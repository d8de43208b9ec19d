import { CombinedError } from "@urql/core";
import { expect, test } from "vitest";

import { codeOf, describe, formErrors, remedy, sentence, withSizes } from "./errors";

const refused = (...errors: [message: string, code: string, field?: string][]): CombinedError =>
  new CombinedError({ graphQLErrors: errors.map(([message, code, field]) => ({ message, extensions: { code, ...(field ? { field } : {}) } })) });

const FIELDS = { "input.options.path": "path", "input.vfolderId": "folder", "input.models": "what", "input.models[0].revision": "revision" };

test("an error stands at its field", () => {
  expect(formErrors(refused(["the path must be relative", "BAD_REQUEST", "input.options.path"]), FIELDS)).toEqual({
    code: "BAD_REQUEST",
    fields: { path: "The path must be relative." },
  });
});

test("what lies within a field stands at it, at the nearest", () => {
  const error = refused(["no such model", "SOURCE_NOT_FOUND", "input.models[0]"], ["no revision", "BAD_REQUEST", "input.models[0].revision"]);
  expect(formErrors(error, FIELDS).fields).toEqual({ what: "No such model.", revision: "No revision." });
});

test("a field's name alone is no prefix of another's", () => {
  expect(formErrors(refused(["wrong", "BAD_REQUEST", "input.vfolderIdentity"]), FIELDS)).toEqual({ code: "BAD_REQUEST", form: "Wrong.", fields: {} });
});

test("what has no field is said of the whole form, the first of it", () => {
  const errors = formErrors(refused(["internal error, request id 7", "INTERNAL"], ["later", "INTERNAL"]), FIELDS);
  expect(errors).toEqual({ code: "INTERNAL", form: "Internal error, request id 7.", fields: {} });
});

test("no answer is told as such, and no code is made up", () => {
  const error = new CombinedError({ networkError: new TypeError("Failed to fetch") });
  expect(formErrors(error, FIELDS).form).toMatch(/does not answer.*kept/);
  expect(describe(error)).toMatch(/does not answer/);
  expect(codeOf(error)).toBeNull();
});

test("no error is no sentence", () => {
  expect(formErrors(undefined, FIELDS)).toEqual({ fields: {} });
});

test("messages are sentences", () => {
  expect(sentence("there is a folder x already; choose another name")).toBe("There is a folder x already; choose another name.");
  expect(sentence("why?")).toBe("why?");
  expect(sentence("why not?")).toBe("Why not?");
  expect(sentence("pytorch_model.bin: the pickle calls posix.system")).toBe("pytorch_model.bin: the pickle calls posix.system.");
  expect(sentence("  ")).toBe("Something went wrong.");
});

test("sizes are told as people read them, ids as they are", () => {
  const message = "needs 2400001328 bytes, and the quota of user:12345678-1531-4180-bbbd-123456789012 has 943718400 left: 0 are used";
  expect(withSizes(message)).toBe("needs 2.2 GiB, and the quota of user:12345678-1531-4180-bbbd-123456789012 has 900 MiB left: 0 are used");
  expect(formErrors(refused([message, "QUOTA_EXCEEDED"]), FIELDS).form).toContain("900 MiB");
  expect(formErrors(refused(["port 65000", "UNAVAILABLE"]), FIELDS).form).toBe("Port 65000.");
});

test("a code has its remedy, an unknown one none, and may be tried again", () => {
  expect(remedy("VERIFICATION_BLOCKED").retry).toBe(false);
  expect(remedy("QUOTA_EXCEEDED").text).toMatch(/larger quota/);
  expect(remedy("OF_TOMORROW")).toEqual({ text: "", retry: true });
});
