/** What several views do alike. */

import type { AnyVariables, TypedDocumentNode } from "@urql/core";
import { createContext, type RefObject, useCallback, useContext, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { useQuery, useSubscription, type UseQueryState } from "urql";

import { connection, session } from "./client";
import { type TaskDetailFragment, TaskByIdDocument, type TaskFragment, TaskUpdatedDocument } from "./graphql/generated";
import type { ConnectionState } from "./lib/connection";
import { remaining, type Sample, speed, withSample } from "./lib/progress";
import { isOpen, later } from "./lib/standing";
import type { SessionState, SessionUser } from "./lib/session";

export const useConnection = (): ConnectionState => useSyncExternalStore(connection.subscribe, connection.snapshot);

export const useSession = (): SessionState => useSyncExternalStore(session.subscribe, session.snapshot);

export interface Me extends SessionUser {
  isAdmin: boolean;
  mayStore: boolean;
}

export const MeContext = createContext<Me | null>(null);

/** Who is signed in; views below the shell have somebody. */
export function useMe(): Me {
  const me = useContext(MeContext);
  if (me === null) throw new Error("nobody is signed in here");
  return me;
}

/** Name the page. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title === "" ? "Stowage" : `${title} · Stowage`;
  }, [title]);
}

interface Asked<Data, Variables extends AnyVariables> {
  query: TypedDocumentNode<Data, Variables>;
  variables: Variables;
  pause?: boolean;
}

/** Ask, show what is known at once, and ask again whenever the connection comes back. */
export function useData<Data, Variables extends AnyVariables>(
  asked: Asked<Data, Variables>,
): [UseQueryState<Data, Variables>, () => void] {
  const { query, variables, pause = false } = asked;
  const [state, execute] = useQuery<Data, Variables>({
    query,
    variables,
    pause,
    requestPolicy: "cache-and-network",
  } as Parameters<typeof useQuery<Data, Variables>>[0]);
  const again = useCallback(() => execute({ requestPolicy: "network-only" }), [execute]);
  const { epoch } = useConnection();
  const seen = useRef(epoch);
  useEffect(() => {
    if (seen.current === epoch || pause) return;
    seen.current = epoch;
    again();
  }, [epoch, pause, again]);
  return [state, again];
}

/** Do something every so often while somebody looks. */
export function useEvery(milliseconds: number | null, task: () => void): void {
  const latest = useRef(task);
  useEffect(() => {
    latest.current = task;
  });
  useEffect(() => {
    if (milliseconds === null) return;
    const timer = setInterval(() => {
      if (!document.hidden) latest.current();
    }, milliseconds);
    return () => clearInterval(timer);
  }, [milliseconds]);
}

/** The time, again every so often. */
export function useNow(milliseconds: number | null): number {
  const [now, setNow] = useState(Date.now);
  useEvery(milliseconds, () => setNow(Date.now()));
  return now;
}

/** Bring the focus to the first field that is wrong, once the page shows which one that is. */
export function useFaultFocus(form: RefObject<HTMLElement | null>): () => void {
  const [faults, setFaults] = useState(0);
  useEffect(() => {
    if (faults > 0) form.current?.querySelector<HTMLElement>("[aria-invalid]")?.focus();
  }, [faults, form]);
  return useCallback(() => setFaults((before) => before + 1), []);
}

/** A value that has stayed the same for a while. */
export function useSettled<Value>(value: Value, milliseconds: number): Value {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return settled;
}

/** Follow a task: how it stands, then each change as it comes. A stream that broke is begun again. */
export function useTask(id: string): {
  task: TaskDetailFragment | null | undefined;
  error: UseQueryState["error"];
  again: () => void;
} {
  const [{ data, error }, again] = useData({ query: TaskByIdDocument, variables: { id } });
  const asked = data?.importTask;
  const [told, follow] = useSubscription({
    query: TaskUpdatedDocument,
    variables: { id },
    pause: asked === undefined || asked === null || !isOpen(asked.status),
  });
  // Whichever came last is how it stands, but for an answer that the stream has overtaken.
  const [latest, setLatest] = useState<TaskDetailFragment | null | undefined>(undefined);
  useEffect(() => setLatest(undefined), [id]);
  useEffect(() => {
    if (asked !== undefined) setLatest((known) => later(known, asked));
  }, [asked]);
  const live = told.data?.importTaskUpdated;
  useEffect(() => {
    if (live !== undefined) setLatest((known) => later(known, live));
  }, [live]);
  const broke = told.error !== undefined;
  useEffect(() => {
    if (!broke) return;
    const timer = setTimeout(() => {
      follow();
      again();
    }, 2000);
    return () => clearTimeout(timer);
  }, [broke, follow, again]);
  const task = latest !== undefined && latest?.id !== undefined ? latest : (asked ?? latest);
  return { task, error, again };
}

/** A row of a list, kept up to date while it is open. */
export function useLiveTask<Row extends TaskFragment>(row: Row, onEnd: () => void): Row {
  const [told, follow] = useSubscription({ query: TaskUpdatedDocument, variables: { id: row.id }, pause: !isOpen(row.status) });
  const live = told.data?.importTaskUpdated;
  const ended = live !== undefined && !isOpen(live.status) && isOpen(row.status);
  const latest = useRef(onEnd);
  useEffect(() => {
    latest.current = onEnd;
  });
  useEffect(() => {
    if (ended) latest.current();
  }, [ended]);
  const broke = told.error !== undefined;
  useEffect(() => {
    if (!broke) return;
    const timer = setTimeout(() => follow(), 2000);
    return () => clearTimeout(timer);
  }, [broke, follow]);
  return live !== undefined && live.id === row.id && isOpen(row.status) ? { ...row, ...live } : row;
}

/** Rate and remaining time of a task, in bytes per second and seconds. */
export function usePace(task: TaskFragment): { perSecond: number | null; left: number | null } {
  const samples = useRef<Sample[]>([]);
  const running = task.status === "RUNNING";
  const now = useNow(running ? 1000 : null);
  const done = Number(task.bytesDone);
  useEffect(() => {
    if (running) samples.current = withSample(samples.current, { at: Date.now(), done });
    else samples.current = [];
  }, [running, done]);
  if (!running) return { perSecond: null, left: null };
  const own = speed(samples.current, now);
  const perSecond = own ?? task.bytesPerSecond;
  const total = task.bytesTotal === null ? null : Number(task.bytesTotal);
  return { perSecond, left: remaining(done, total, perSecond) };
}
