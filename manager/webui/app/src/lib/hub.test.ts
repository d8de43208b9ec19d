import { expect, test } from "vitest";

import { scanTarget } from "./hub";

const hub = "https://hub.example.org";

test.each([
  ["org/name", "org/name", null],
  ["  org/name  ", "org/name", null],
  ["org/name@v1.0", "org/name", "v1.0"],
  ["org/name@refs/pr/1", "org/name", "refs/pr/1"],
  [`${hub}/org/name`, "org/name", null],
  [`${hub}/org/name/`, "org/name", null],
  [`${hub}/org/name?library=transformers#files`, "org/name", null],
  [`${hub}/org/name/tree/fp16`, "org/name", "fp16"],
  [`${hub}/org/name/tree/feature%2Fx/onnx`, "org/name", "feature/x"],
  [`${hub}/org/name/blob/main/config.json`, "org/name", "main"],
  [`${hub}/org/name/resolve/main/model.safetensors`, "org/name", "main"],
  [`${hub}/org/name/discussions/3`, "org/name", null],
  [`${hub}/api/models/org/name`, "org/name", null],
  ["hub.example.org/org/name", "org/name", null],
  ["http://127.0.0.1:8086/sample/tiny-bert", "sample/tiny-bert", null],
])("%s is the model %s at %s", (typed, modelId, revision) => {
  expect(scanTarget(typed)).toEqual({ kind: "model", modelId, revision });
});

test.each([
  "bert",
  "",
  "tiny bert",
  "org/",
  "a/b/c",
  `${hub}/datasets/org/name`,
  `${hub}/spaces/org/name`,
  `${hub}/org`,
  `${hub}/%zz/name`,
  `${hub}/.../name`,
])("%s is searched for", (typed) => {
  expect(scanTarget(typed)).toEqual({ kind: "search", search: typed.trim() });
});
