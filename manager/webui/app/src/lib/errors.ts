/** Errors of the API as sentences, each at the field it belongs to. */

import type { CombinedError } from "@urql/core";

import { bytes } from "./format";

/** A sentence for the whole form, and one for each field, by the form's own names. */
export interface FormErrors {
  form?: string;
  fields: Record<string, string>;
  code?: string;
}

export const NO_ERRORS: FormErrors = { fields: {} };

const NOT_REACHED = "Stowage does not answer. What you entered is kept; try again in a moment.";

/** Make a sentence of a message of the API. */
export function sentence(message: string): string {
  const text = message.trim();
  if (text === "") return "Something went wrong.";
  // A file's name or a code at the beginning stays as it is.
  const begun = /^[a-z'-]+[,;:]?(?: |$)/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** Write the numbers of bytes in a message as people read them. */
export function withSizes(message: string): string {
  return message.replace(/(?<![-:.\w])(\d{5,})(?![-.\w])(?: bytes)?/g, (_, number: string) => bytes(number));
}

// Their messages are about bytes.
const OF_SIZES = new Set(["QUOTA_EXCEEDED", "DISK_FULL"]);

/** The code of an error of the API, or null. */
export function codeOf(error: CombinedError | undefined): string | null {
  const code = error?.graphQLErrors[0]?.extensions["code"];
  return typeof code === "string" ? code : null;
}

/** Why an import failed, as a sentence. */
export function errorText(error: { code: string; message: string }): string {
  return sentence(OF_SIZES.has(error.code) ? withSizes(error.message) : error.message);
}

/** One sentence for an error that has no field to stand at. */
export function describe(error: CombinedError): string {
  const first = error.graphQLErrors[0];
  return first === undefined ? NOT_REACHED : errorText({ code: codeOf(error) ?? "", message: first.message });
}

/**
 * Put each error at its field. `fields` gives the form's name for what `extensions.field` says; its longest prefix counts
 * (`input.models[0].modelId` is found by `input.models`). What fits none is said of the whole form.
 */
export function formErrors(error: CombinedError | undefined, fields: Record<string, string>): FormErrors {
  if (error === undefined) return NO_ERRORS;
  if (error.graphQLErrors.length === 0) return { form: NOT_REACHED, fields: {} };
  const found: FormErrors = { fields: {} };
  for (const each of error.graphQLErrors) {
    const { code, field } = each.extensions;
    if (typeof code === "string") found.code ??= code;
    const name = typeof field === "string" ? fieldFor(field, fields) : undefined;
    const said = errorText({ code: String(code), message: each.message });
    if (name === undefined) found.form ??= said;
    else found.fields[name] ??= said;
  }
  return found;
}

function fieldFor(field: string, fields: Record<string, string>): string | undefined {
  const prefixes = Object.keys(fields)
    .filter((prefix) => field === prefix || (field.startsWith(prefix) && /^[.[]/.test(field.slice(prefix.length))))
    .sort((one, other) => other.length - one.length);
  return prefixes[0] === undefined ? undefined : fields[prefixes[0]];
}

/** What helps where an import failed, beside what its message says. */
export interface Remedy {
  text: string;
  /** Whether doing the same again may succeed. */
  retry: boolean;
}

const REMEDIES: Record<string, Remedy> = {
  QUOTA_EXCEEDED: { text: "Remove what you no longer need from the folder, or ask for a larger quota. Then try again.", retry: true },
  DISK_FULL: { text: "The volume itself is full. Tell its operator, and try again once there is room.", retry: true },
  DESTINATION_CONFLICT: { text: "Choose another path, move the files away, or import again and replace them.", retry: true },
  PATH_REFUSED: { text: "The model has a file whose name this volume does not take. Nothing was written.", retry: false },
  READ_ONLY: { text: "The volume takes no files now. Tell its operator, and try again later.", retry: true },
  STORAGE_IO: { text: "The volume failed while it was written to. Tell its operator, and try again later.", retry: true },
  SOURCE_NOT_FOUND: { text: "The registry no longer has it. An administrator can scan the model again.", retry: false },
  SOURCE_FORBIDDEN: { text: "The model is gated or private. An administrator can give the registry a token that may read it.", retry: true },
  SOURCE_UNAVAILABLE: { text: "The registry gave no usable answer. What has arrived is not lost to others; try again later.", retry: true },
  SOURCE_INVALID: { text: "The registry answered in a way that Stowage does not trust. Try again later.", retry: true },
  SOURCE_CHANGED: { text: "The model changed while it was fetched. Ask an administrator to scan it again, then import anew.", retry: true },
  DIGEST_MISMATCH: { text: "What arrived is not what the registry states, so nothing of it was kept. Try again.", retry: true },
  VERIFICATION_BLOCKED: { text: "Nothing was published: the files could do harm. The findings below say which and why.", retry: false },
  VERIFICATION_INCOMPLETE: { text: "Not every file could be checked, so nothing was published. The report below says why.", retry: true },
  REJECTED: { text: "Nothing was published, and what was staged is removed. Ask an administrator before you try again.", retry: false },
  PERMISSION_REVOKED: { text: "You may no longer write to that folder. Ask its owner, or import into another one.", retry: false },
  ATTEMPTS_EXHAUSTED: { text: "It was begun several times and never came to its end. Tell the operator, or try again.", retry: true },
  UNAVAILABLE: { text: "A part of Stowage did not answer. Try again in a moment.", retry: true },
  INTERNAL: { text: "This is a fault of Stowage. Give the request id below to its operator.", retry: true },
};

/** Say what helps against a code; every failed import may be tried again by hand. */
export function remedy(code: string): Remedy {
  return REMEDIES[code] ?? { text: "", retry: true };
}
