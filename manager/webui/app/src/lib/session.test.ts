import { expect, test, vi } from "vitest";

import { Session } from "./session";

const ADA = { id: "5", email: "ada@example.org", role: "USER" };

type Answer = [status: number, body?: unknown] | "nothing";

function sessionAt(...answers: Answer[]): { session: Session; fetcher: ReturnType<typeof vi.fn<typeof fetch>>; renewed: ReturnType<typeof vi.fn<() => void>> } {
  const renewed = vi.fn<() => void>();
  const fetcher = vi.fn<typeof fetch>(() => {
    const answer = answers.shift() ?? "nothing";
    if (answer === "nothing") return Promise.reject(new TypeError("Failed to fetch"));
    const [status, body] = answer;
    return Promise.resolve(new Response(body === undefined ? null : JSON.stringify(body), { status }));
  });
  return { session: new Session(fetcher, renewed), fetcher, renewed };
}

test("a good token signs in, and is sent in the body alone", async () => {
  const { session, fetcher } = sessionAt([200, { user: ADA, expiresAt: null }]);
  expect(await session.signIn("stw_secret")).toEqual({ ok: true });
  expect(session.snapshot()).toEqual({ kind: "signed-in", user: ADA, expiresAt: null });
  const [path, request] = fetcher.mock.calls[0] ?? [];
  expect(path).toBe("/session");
  expect(request?.body).toBe('{"token":"stw_secret"}');
  expect(request?.headers).toMatchObject({ "X-Stowage-Request": "page" });
  expect(JSON.stringify(session)).not.toContain("stw_secret");
});

test.each<[Answer, string]>([
  [[401, { code: "UNAUTHENTICATED", message: "the token is expired; ask for another one" }], "The token is expired; ask for another one."],
  [[401], "Stowage could not sign you in now. Try again in a moment."],
  [[502, "<html>"], "Stowage could not sign you in now. Try again in a moment."],
  ["nothing", "Stowage does not answer. Try again in a moment."],
])("%j is told at the field", async (answer, message) => {
  const { session } = sessionAt(answer);
  expect(await session.signIn("x")).toEqual({ ok: false, message });
  expect(session.snapshot()).toEqual({ kind: "unknown" });
});

test("without a cookie nobody is signed in", async () => {
  const { session } = sessionAt([401, {}]);
  expect(await session.check()).toBe(true);
  expect(session.snapshot()).toEqual({ kind: "none" });
});

test("a manager that does not answer ends no session", async () => {
  const { session } = sessionAt([200, { user: ADA, expiresAt: null }], "nothing", [503, {}]);
  await session.check();
  expect(await session.check()).toBe(false);
  expect(await session.check()).toBe(false);
  expect(session.snapshot().kind).toBe("signed-in");
});

test("a session that ends in use is remembered, so that its page can stay", async () => {
  const { session, renewed } = sessionAt([200, { user: ADA, expiresAt: null }], [401, {}], [200, { user: ADA, expiresAt: null }]);
  await session.check();
  await session.check();
  expect(session.snapshot()).toEqual({ kind: "ended", user: ADA });
  expect(renewed).not.toHaveBeenCalled();
  await session.signIn("y");
  expect(renewed).toHaveBeenCalledTimes(1);
  expect(session.snapshot().kind).toBe("signed-in");
});

test("signing out that did not arrive is not claimed", async () => {
  const { session } = sessionAt([200, { user: ADA, expiresAt: null }], "nothing", [204]);
  await session.check();
  expect(await session.signOut()).toBe(false);
  expect(session.snapshot().kind).toBe("signed-in");
  expect(await session.signOut()).toBe(true);
  expect(session.snapshot()).toEqual({ kind: "none" });
});
