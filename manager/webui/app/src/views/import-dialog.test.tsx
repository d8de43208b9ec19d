// @vitest-environment jsdom
import { cleanup, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { Provider } from "urql";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { makeClient } from "../client";
import type { FolderFragment, PreviewQuery } from "../graphql/generated";
import { MeContext } from "../hooks";
import { ImportDialog } from "./import-dialog";

type Answer = { data: unknown } | { errors: { message: string; extensions: { code: string; field?: string } }[] };
type Asked = { operationName: string; variables: Record<string, unknown> };

const ME = { id: "11111111-1111-4111-8111-111111111111", email: "ada@example.org", role: "USER", isAdmin: false, mayStore: false } as const;
const REVISION = { id: "r1", version: "main", size: "1000", digest: null };

const folder = (id: string, name: string, usageMode: FolderFragment["usageMode"] = "MODEL"): FolderFragment => ({
  id,
  name,
  host: "local:volume1",
  usageMode,
  ownershipType: "USER",
  status: "READY",
  quotaScopeId: `user:${ME.id}`,
  createdAt: "2026-11-26T12:00:00Z",
  permission: "RW_DELETE",
  project: null,
});

const preview = (change: Partial<PreviewQuery["importPreview"]> = {}): Answer => ({
  data: {
    importPreview: {
      path: "org/bert/main",
      size: "1000",
      missing: "1000",
      alreadyThere: false,
      fits: true,
      truncated: false,
      quota: { limit: "2000", used: "500", reserved: "0", free: "1500" },
      conflicts: [],
      ...change,
    },
  },
});

const refusal = (message: string, code: string, field?: string): Answer => ({
  errors: [{ message, extensions: { code, ...(field === undefined ? {} : { field }) } }],
});

let folders: FolderFragment[] = [];
let answers: Record<string, (asked: Asked) => Answer> = {};
let log: Asked[] = [];

beforeEach(() => {
  // The dialog element is the browser's; jsdom has its name alone.
  HTMLDialogElement.prototype.showModal = function show() {
    this.open = true;
  };
  HTMLDialogElement.prototype.close = function close() {
    this.open = false;
  };
  folders = [];
  log = [];
  answers = {
    WritableFolders: () => ({
      data: { vfolders: { count: folders.length, pageInfo: { hasNextPage: false, endCursor: null }, edges: folders.map((node) => ({ node })) } },
    }),
    Room: () => ({ data: { quota: { id: "q", limitBytes: "2000", usedBytes: "500", reservedBytes: "0", availableBytes: "1500" } } }),
    Volumes: () => ({ data: { volumes: [{ host: "local:volume1", backend: "vfs", totalBytes: null, usedBytes: null }] } }),
    Preview: () => preview(),
    Import: () => ({ data: { importArtifacts: { tasks: [{ taskId: "22222222-2222-4222-8222-222222222222", artifactRevision: { id: "r1", status: "SCANNED" }, task: null }] } } }),
  };
  vi.stubGlobal("fetch", (_path: string, request: RequestInit) => {
    const asked = JSON.parse(String(request.body)) as Asked;
    log.push(asked);
    const answer = answers[asked.operationName]?.(asked) ?? { data: null };
    return Promise.resolve(new Response(JSON.stringify({ data: null, ...answer }), { status: 200, headers: { "Content-Type": "application/json" } }));
  });
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

function open(): ReturnType<typeof vi.fn<() => void>> {
  const onClose = vi.fn<() => void>();
  render(
    <Provider value={makeClient()}>
      <MeContext value={ME}>
        <ImportDialog modelName="org/bert" revisions={[REVISION]} revisionId="r1" onClose={onClose} />
      </MeContext>
    </Provider>,
  );
  return onClose;
}

const sent = (operation: string): Record<string, unknown>[] => log.filter((asked) => asked.operationName === operation).map((asked) => asked.variables);

test("somebody without a folder makes one, and it is for models", async () => {
  answers["CreateFolder"] = () => ({ data: { createVfolder: { vfolder: folder("f9", "bert") } } });
  const onClose = open();
  expect(await screen.findByLabelText("Name of the new folder")).toHaveProperty("value", "bert");
  await userEvent.click(screen.getByRole("button", { name: "Make folder and import" }));
  await waitFor(() => expect(onClose).toHaveBeenCalled());
  expect(sent("CreateFolder")).toEqual([{ input: { name: "bert", usageMode: "MODEL", host: null } }]);
  expect(sent("Import")).toEqual([{ input: { artifactRevisionIds: ["r1"], vfolderId: "f9", options: {} } }]);
  expect(location.pathname).toBe("/tasks/22222222-2222-4222-8222-222222222222");
});

test("a name that is taken is told at the name, and nothing typed is lost", async () => {
  // A frame may come before the page shows the fault, which is too early for the focus.
  vi.stubGlobal("requestAnimationFrame", (frame: FrameRequestCallback) => {
    frame(0);
    return 0;
  });
  answers["CreateFolder"] = () => refusal("there is a folder bert already; choose another name", "CONFLICT", "input.name");
  open();
  const name = await screen.findByLabelText("Name of the new folder");
  await userEvent.type(screen.getByLabelText(/^Path in the folder/), "models/b");
  await userEvent.click(screen.getByRole("button", { name: "Make folder and import" }));
  expect((await screen.findByRole("alert")).textContent).toBe("There is a folder bert already; choose another name.");
  expect(name.getAttribute("aria-invalid")).toBe("true");
  await waitFor(() => expect(document.activeElement).toBe(name));
  expect(name).toHaveProperty("value", "bert");
  expect(screen.getByLabelText(/^Path in the folder/)).toHaveProperty("value", "models/b");
  expect(sent("Import")).toEqual([]);
});

test("a name that no folder may have is refused before anybody is asked", async () => {
  open();
  const name = await screen.findByLabelText("Name of the new folder");
  await userEvent.clear(name);
  await userEvent.type(name, "a/b");
  await userEvent.click(screen.getByRole("button", { name: "Make folder and import" }));
  expect((await screen.findByRole("alert")).textContent).toMatch(/letters, digits/);
  expect(sent("CreateFolder")).toEqual([]);
});

test("a folder that was made stays chosen when the import is refused", async () => {
  answers["CreateFolder"] = () => ({ data: { createVfolder: { vfolder: folder("f9", "bert") } } });
  answers["Import"] = () => refusal("the path must be relative", "BAD_REQUEST", "input.options.path");
  open();
  await screen.findByLabelText("Name of the new folder");
  await userEvent.click(screen.getByRole("button", { name: "Make folder and import" }));
  expect((await screen.findByRole("alert")).textContent).toBe("The path must be relative.");
  expect(screen.getByRole("radio", { name: /^bert/ })).toHaveProperty("checked", true);
  await userEvent.click(screen.getByRole("button", { name: "Import" }));
  await waitFor(() => expect(sent("Import")).toHaveLength(2));
  expect(sent("CreateFolder")).toHaveLength(1);
});

test("the only folder is chosen, with what it leaves and what the import brings", async () => {
  folders = [folder("f1", "mine")];
  open();
  expect(await screen.findByRole("img", { name: "500 B of 2.0 KiB used, this import brings 1000 B" })).toBeTruthy();
  expect(screen.getByText("1.5 KiB free")).toBeTruthy();
  expect(sent("Preview")).toEqual([{ input: { artifactRevisionId: "r1", vfolderId: "f1" } }]);
});

test("what does not fit cannot be begun", async () => {
  folders = [folder("f1", "mine")];
  answers["Preview"] = () => preview({ fits: false, quota: { limit: "2000", used: "1800", reserved: "0", free: "200" } });
  open();
  expect(await screen.findByText(/needs 1000 B, and the quota leaves 200 B/)).toBeTruthy();
  expect(screen.getByRole("button", { name: "Import" })).toHaveProperty("disabled", true);
});

test("a folder that could not take the model is not made", async () => {
  answers["Room"] = () => ({ data: { quota: { id: "q", limitBytes: "2000", usedBytes: "1800", reservedBytes: "0", availableBytes: "200" } } });
  open();
  await screen.findByLabelText("Name of the new folder");
  await userEvent.click(screen.getByRole("button", { name: "Make folder and import" }));
  expect((await screen.findByRole("alert")).textContent).toMatch(/^Your quota leaves 200 B, and the model needs 1000 B/);
  await waitFor(() => expect(document.activeElement).toBe(screen.getByRole("radio", { name: "New folder for models" })));
  expect(sent("CreateFolder")).toEqual([]);
});

test("what is in the way is replaced only where that is agreed to", async () => {
  folders = [folder("f1", "mine")];
  answers["Preview"] = () => preview({ conflicts: [{ path: "org/bert/main/config.json", reason: "it is not of this model" }] });
  const onClose = open();
  const agree = await screen.findByRole("checkbox", { name: /Replace them/ });
  expect(screen.getByText("It is not of this model.")).toBeTruthy();
  expect(screen.getByRole("button", { name: "Import" })).toHaveProperty("disabled", true);
  await waitFor(() => expect(agree).toHaveProperty("disabled", false));
  await userEvent.click(agree);
  await userEvent.click(screen.getByRole("button", { name: "Import" }));
  await waitFor(() => expect(onClose).toHaveBeenCalled());
  expect(sent("Import")).toEqual([{ input: { artifactRevisionIds: ["r1"], vfolderId: "f1", options: { onConflict: "OVERWRITE" } } }]);
});

test("a sum over quota stands at the folder", async () => {
  folders = [folder("f1", "mine")];
  answers["Import"] = () => refusal("the quota of 2.0 KiB leaves 0 B", "QUOTA_EXCEEDED");
  open();
  await screen.findByRole("img", { name: /this import brings/ });
  await userEvent.click(screen.getByRole("button", { name: "Import" }));
  expect((await screen.findByRole("alert")).textContent).toBe("The quota of 2.0 KiB leaves 0 B.");
  expect(screen.getByRole("radio", { name: /^mine/ }).getAttribute("aria-invalid")).toBe("true");
});

test("folders for models are offered first, and one that is being deleted is not", async () => {
  folders = [folder("f1", "alpha", "GENERAL"), folder("f2", "zulu"), { ...folder("f3", "gone"), status: "DELETE_ONGOING" }];
  open();
  await screen.findByRole("radio", { name: /^zulu/ });
  expect(screen.getAllByRole("radio").map((each) => each.getAttribute("value"))).toEqual(["f2", "f1", "new"]);
  expect(screen.getAllByRole("radio").some((each) => (each as HTMLInputElement).checked)).toBe(false);
  await userEvent.click(screen.getByRole("button", { name: "Import" }));
  expect((await screen.findByRole("alert")).textContent).toBe("Choose a folder, or make a new one.");
});
