import { type FormEvent, type ReactElement, useRef, useState } from "react";

import { session } from "../client";
import { useTitle } from "../hooks";
import { Sign } from "../ui/icons";
import { Button, Field } from "../ui/parts";
import { ThemeSwitch } from "../ui/theme";

export function SignInView(): ReactElement {
  useTitle("Sign in");
  return (
    <main className="sign-in">
      <div className="sign-in-card">
        <div className="sign-in-brand">
          <Sign />
          <span>Stowage</span>
          <ThemeSwitch />
        </div>
        <h1>Sign in</h1>
        <p className="muted">Models from the registry, whole and verified, in your folder.</p>
        <SignInForm />
      </div>
    </main>
  );
}

export function SignInForm(): ReactElement {
  const [token, setToken] = useState("");
  const [shown, setShown] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string>();
  const input = useRef<HTMLInputElement>(null);

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (busy) return;
    if (token.trim() === "") {
      setError("Enter your token.");
      input.current?.focus();
      return;
    }
    setBusy(true);
    const answer = await session.signIn(token.trim());
    setBusy(false);
    if (!answer.ok) {
      setError(answer.message);
      input.current?.focus();
    }
  };

  return (
    <form className="stack" onSubmit={(event) => void submit(event)} noValidate>
      <Field
        label="Token"
        error={error}
        hint={
          <>
            It begins with <code>stw_</code>. Whoever runs Stowage gives you one, or makes one with <code>stowage token create</code>.
          </>
        }
      >
        {(props) => (
          <div className="input-with-button">
            <input
              {...props}
              ref={input}
              name="token"
              type={shown ? "text" : "password"}
              autoComplete="current-password"
              autoCapitalize="off"
              spellCheck={false}
              autoFocus
              value={token}
              onChange={(event) => {
                setToken(event.target.value);
                setError(undefined);
              }}
            />
            <button type="button" className="input-button" aria-pressed={shown} onClick={() => setShown(!shown)}>
              {shown ? "Hide" : "Show"}
              <span className="visually-hidden"> the token</span>
            </button>
          </div>
        )}
      </Field>
      <Button kind="primary" type="submit" busy={busy}>
        Sign in
      </Button>
    </form>
  );
}
