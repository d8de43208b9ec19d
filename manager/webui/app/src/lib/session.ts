/** Who is signed in. The token itself is in a cookie that no script can read. */

import { sentence } from "./errors";

export interface SessionUser {
  id: string;
  email: string;
  role: "USER" | "ADMIN";
}

export type SessionState =
  | { kind: "unknown" }
  | { kind: "none" }
  | { kind: "signed-in"; user: SessionUser; expiresAt: string | null }
  /** The session ended while the page was in use: what is on the screen stays, behind a sign-in. */
  | { kind: "ended"; user: SessionUser };

export type SignInAnswer = { ok: true } | { ok: false; message: string };

/** What the manager wants to see on requests that a cookie signs: no other site can send it. */
export const PAGE_HEADERS = { "X-Stowage-Request": "page" };

export class Session {
  private state: SessionState = { kind: "unknown" };
  private readonly listeners = new Set<() => void>();

  /** `renewed` is told when a session that ended in use goes on. */
  constructor(
    private readonly fetcher: typeof fetch,
    private readonly renewed: () => void = () => undefined,
  ) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): SessionState => this.state;

  /** Ask whether the cookie is still good. Returns whether the manager answered at all. */
  async check(): Promise<boolean> {
    let answer: Response;
    try {
      answer = await this.fetcher("/session", { headers: PAGE_HEADERS });
    } catch {
      return false;
    }
    if (answer.ok) {
      this.signedIn(await answer.json());
      return true;
    }
    if (answer.status === 401) {
      this.expire();
      return true;
    }
    return answer.status < 500;
  }

  async signIn(token: string): Promise<SignInAnswer> {
    let answer: Response;
    try {
      answer = await this.fetcher("/session", {
        method: "POST",
        headers: { ...PAGE_HEADERS, "Content-Type": "application/json" },
        body: JSON.stringify({ token }),
      });
    } catch {
      return { ok: false, message: "Stowage does not answer. Try again in a moment." };
    }
    const body: unknown = await answer.json().catch(() => null);
    if (answer.ok) {
      this.signedIn(body);
      return { ok: true };
    }
    return { ok: false, message: messageIn(body) ?? "Stowage could not sign you in now. Try again in a moment." };
  }

  /** End the session. The page forgets who it was also where the manager does not answer; returns whether it did. */
  async signOut(): Promise<boolean> {
    try {
      const answer = await this.fetcher("/session", { method: "DELETE", headers: PAGE_HEADERS });
      if (!answer.ok && answer.status !== 401) return false;
    } catch {
      return false;
    }
    this.set({ kind: "none" });
    return true;
  }

  /** A request was refused for want of a session. */
  readonly expire = (): void => {
    if (this.state.kind === "signed-in") this.set({ kind: "ended", user: this.state.user });
    else if (this.state.kind === "unknown") this.set({ kind: "none" });
  };

  private signedIn(body: unknown): void {
    const { user, expiresAt } = body as { user: SessionUser; expiresAt: string | null };
    const again = this.state.kind === "ended";
    this.set({ kind: "signed-in", user, expiresAt });
    if (again) this.renewed();
  }

  private set(state: SessionState): void {
    this.state = state;
    for (const listener of this.listeners) listener();
  }
}

function messageIn(body: unknown): string | null {
  if (typeof body !== "object" || body === null || !("message" in body)) return null;
  return typeof body.message === "string" && body.message !== "" ? sentence(body.message) : null;
}
