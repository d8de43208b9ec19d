/** The shell: who is signed in, where one is, and whether the manager answers. */

import { type ReactElement, type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { Provider, useQuery } from "urql";
import { Link, Redirect, Route, Switch, useLocation } from "wouter";

import { connection, makeClient, session } from "./client";
import { MeDocument, OpenTasksDocument } from "./graphql/generated";
import { type Me, MeContext, useConnection, useData, useEvery, useMe, useSession } from "./hooks";
import type { SessionUser } from "./lib/session";
import { announcements } from "./ui/announce";
import { Dialog } from "./ui/dialog";
import { Icon, Sign } from "./ui/icons";
import { ThemeSwitch } from "./ui/theme";
import { FolderView } from "./views/folder";
import { FoldersView } from "./views/folders";
import { ModelView } from "./views/model";
import { NotFound } from "./views/not-found";
import { SignInForm, SignInView } from "./views/sign-in";
import { StoreView } from "./views/store";
import { TaskView } from "./views/task";
import { TasksView } from "./views/tasks";

export function App(): ReactElement {
  const state = useSession();
  const [path] = useLocation();
  switch (state.kind) {
    case "unknown":
      return (
        <>
          <ConnectionBanner />
          <div className="boot" role="status">
            <Sign />
            <span className="visually-hidden">Loading Stowage</span>
          </div>
        </>
      );
    case "none":
      if (path !== "/sign-in") return <Redirect to={`/sign-in?next=${encodeURIComponent(path + location.search)}`} replace />;
      return (
        <>
          <ConnectionBanner />
          <SignInView />
        </>
      );
    case "signed-in":
      return <SignedIn key={state.user.id} user={state.user} />;
    case "ended":
      return (
        <SignedIn key={state.user.id} user={state.user}>
          <Dialog title="Your session has ended" onClose={() => undefined} closable={false}>
            <p>
              Sign in again to go on as <strong>{state.user.email}</strong>. What you have entered is still here.
            </p>
            <SignInForm />
          </Dialog>
        </SignedIn>
      );
  }
}

function SignedIn({ user, children }: { user: SessionUser; children?: ReactNode }): ReactElement {
  const client = useMemo(makeClient, []);
  return (
    <Provider value={client}>
      <WithMe user={user}>
        <Shell />
        {children}
      </WithMe>
    </Provider>
  );
}

function WithMe({ user, children }: { user: SessionUser; children: ReactNode }): ReactElement {
  const [{ data }] = useQuery({ query: MeDocument });
  const me = useMemo<Me>(
    () => ({
      ...user,
      isAdmin: user.role === "ADMIN",
      mayStore: user.role === "ADMIN" || (data?.me.permissions?.includes("ARTIFACT_IMPORT") ?? false),
    }),
    [user, data],
  );
  return <MeContext value={me}>{children}</MeContext>;
}

function Shell(): ReactElement {
  const [path] = useLocation();
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    // A new page is read from its heading.
    window.scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [path]);
  return (
    <>
      <a className="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        main.current?.focus();
      }}>
        Skip to the content
      </a>
      <ConnectionBanner />
      <TopBar path={path} />
      <main id="main" ref={main} tabIndex={-1}>
        <Switch>
          <Route path="/" component={StoreView} />
          <Route path="/models/:id">{({ id }) => <ModelView key={id} id={id} />}</Route>
          <Route path="/tasks" component={TasksView} />
          <Route path="/tasks/:id">{({ id }) => <TaskView key={id} id={id} />}</Route>
          <Route path="/folders" component={FoldersView} />
          <Route path="/folders/:id">{({ id }) => <FolderView key={id} id={id} />}</Route>
          <Route path="/sign-in">
            <Redirect to={nextPlace()} replace />
          </Route>
          <Route>
            <NotFound title="There is no such page" />
          </Route>
        </Switch>
      </main>
      <Announcer />
    </>
  );
}

/** Where to go after signing in: a place of this page, never another site's. */
export function nextPlace(): string {
  const next = new URLSearchParams(location.search).get("next") ?? "/";
  return /^\/(?![/\\])/.test(next) && !next.startsWith("/sign-in") ? next : "/";
}

const PLACES = [
  { to: "/", name: "Models", at: (path: string) => path === "/" || path.startsWith("/models/") },
  { to: "/tasks", name: "Tasks", at: (path: string) => path.startsWith("/tasks") },
  { to: "/folders", name: "Folders", at: (path: string) => path.startsWith("/folders") },
];

function TopBar({ path }: { path: string }): ReactElement {
  const [{ data }, again] = useData({ query: OpenTasksDocument, variables: {} });
  useEvery(15_000, again);
  useEffect(again, [path, again]);
  const open = data?.importTasks?.count ?? 0;
  return (
    <header className="top">
      <div className="top-inner">
        <Link href="/" className="wordmark" aria-label="Stowage, to the Model Store">
          <Sign />
          <span>Stowage</span>
        </Link>
        <nav aria-label="Main">
          <ul>
            {PLACES.map((place) => (
              <li key={place.to}>
                <Link href={place.to} aria-current={place.at(path) ? "page" : undefined}>
                  {place.name}
                  {place.to === "/tasks" && open > 0 && (
                    <span className="nav-count">
                      {open}
                      <span className="visually-hidden"> open</span>
                    </span>
                  )}
                </Link>
              </li>
            ))}
          </ul>
        </nav>
        <div className="top-end">
          <ThemeSwitch />
          <Account />
        </div>
      </div>
    </header>
  );
}

function Account(): ReactElement {
  const me = useMe();
  const [fault, setFault] = useState(false);
  const [open, setOpen] = useState(false);
  const menu = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!open) return;
    const close = (event: Event): void => {
      if (!(event.target instanceof Node) || menu.current?.contains(event.target) !== true) setOpen(false);
    };
    const escape = (event: KeyboardEvent): void => {
      if (event.key !== "Escape") return;
      setOpen(false);
      button.current?.focus();
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("focusin", close);
    document.addEventListener("keydown", escape);
    return () => {
      document.removeEventListener("pointerdown", close);
      document.removeEventListener("focusin", close);
      document.removeEventListener("keydown", escape);
    };
  }, [open]);
  return (
    <div className="account" ref={menu}>
      <button ref={button} type="button" className="account-button" aria-expanded={open} aria-controls="account" onClick={() => setOpen(!open)}>
        <span className="avatar" aria-hidden="true">
          {me.email.charAt(0).toUpperCase()}
        </span>
        <span className="visually-hidden">Account of {me.email}</span>
      </button>
      <div id="account" className="account-menu" hidden={!open}>
        <p className="account-who">
          <span className="label">Signed in as</span>
          <strong>{me.email}</strong>
          <span className="muted">{me.isAdmin ? "Administrator" : "User"}</span>
        </p>
        <a href="/graphql">
          <Icon name="link" />
          GraphiQL
        </a>
        <button type="button" onClick={() => void session.signOut().then((done) => setFault(!done))}>
          <Icon name="back" />
          Sign out
        </button>
        {fault && <p className="field-error">Stowage does not answer, so you are still signed in. Try again.</p>}
      </div>
    </div>
  );
}

function ConnectionBanner(): ReactElement {
  const { online } = useConnection();
  return (
    <div className="connection" role="status">
      {!online && (
        <div className="connection-lost">
          <span className="spinner" aria-hidden="true" />
          <span>Reconnecting: Stowage does not answer. Imports go on without this page.</span>
          <button type="button" onClick={connection.tryNow}>
            Try now
          </button>
        </div>
      )}
    </div>
  );
}

function Announcer(): ReactElement {
  const [text, setText] = useState("");
  useEffect(() => announcements(setText), []);
  return (
    <p className="visually-hidden" role="status" aria-live="polite">
      {text}
    </p>
  );
}
