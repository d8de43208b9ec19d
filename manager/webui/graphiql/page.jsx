import '@graphiql/react/style.css';
import 'graphiql/style.css';
import '@graphiql/plugin-explorer/style.css';
import './page.css';

import { explorerPlugin } from '@graphiql/plugin-explorer';
import { useEditorContext } from '@graphiql/react';
import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import { Kind, parse } from 'graphql';
import { createClient } from 'graphql-ws';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

import { STARTERS, found } from './starters.js';

const ENDPOINT = location.origin + location.pathname;
// sessionStorage: another tab or window does not see it, and it is gone with this tab.
const TOKEN = 'stowage:token';

// Asks who the token belongs to; throws an Error that people can read.
async function whose(token) {
  let answer;
  try {
    const response = await fetch(ENDPOINT, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` },
      body: JSON.stringify({ query: '{ me { email role } }' }),
    });
    answer = await response.json();
  } catch {
    throw new Error('Stowage gives no answer. Is it still running?');
  }
  if (!answer.data?.me) throw new Error(answer.errors?.[0]?.message ?? 'Stowage gives an answer that is none.');
  return answer.data.me;
}

function Page() {
  const [token, setToken] = useState(() => sessionStorage.getItem(TOKEN));
  const [me, setMe] = useState(null);
  const [refusal, setRefusal] = useState('');

  async function enter(entered) {
    try {
      setMe(await whose(entered));
      sessionStorage.setItem(TOKEN, entered);
      setRefusal('');
      setToken(entered);
    } catch (error) {
      forget();
      setRefusal(error.message);
    }
  }

  function forget() {
    sessionStorage.removeItem(TOKEN);
    setMe(null);
    setToken(null);
  }

  useEffect(() => {
    if (token && !me) enter(token);
  }, []);

  if (token && me) return <Session key={token} token={token} me={me} onForget={forget} />;
  return token ? null : <SignIn refusal={refusal} onToken={enter} />;
}

function SignIn({ refusal, onToken }) {
  const [busy, setBusy] = useState(false);

  async function submit(event) {
    event.preventDefault();
    const token = new FormData(event.target).get('token').trim();
    if (!token) return;
    setBusy(true);
    await onToken(token);
    setBusy(false);
  }

  return (
    <main className="stowage-sign-in">
      <form onSubmit={submit}>
        <h1>
          <img src="static/graphiql/icon.svg" alt="" /> Stowage GraphiQL
        </h1>
        <label htmlFor="token">Token</label>
        <input id="token" name="token" type="password" autoComplete="off" spellCheck="false" autoFocus required />
        {refusal && <p role="alert">{refusal}</p>}
        <button type="submit" disabled={busy}>
          Open
        </button>
        <p>
          <code>stowage up</code> prints where the administrator’s token lies; <code>stowage token create</code> makes
          others. It is kept for this browser tab alone and forgotten with it.
        </p>
      </form>
    </main>
  );
}

function Session({ token, me, onForget }) {
  const [learned, setLearned] = useState({});
  const [fetcher] = useState(() => {
    const headers = { Authorization: `Bearer ${token}` };
    const wsClient = createClient({ url: ENDPOINT.replace(/^http/, 'ws'), connectionParams: headers });
    const send = createGraphiQLFetcher({ url: ENDPOINT, headers, wsClient, enableIncrementalDelivery: false });
    return (parameters, options) => {
      const answer = send(...asked(parameters, options));
      if (parameters.operationName !== 'IntrospectionQuery') {
        Promise.resolve(answer).then(({ data }) => data && setLearned((known) => ({ ...known, ...found(data) })), () => {});
      }
      return answer;
    };
  });
  const [plugins] = useState(() => [explorerPlugin({ showAttribution: false })]);

  return (
    <>
      <header className="stowage-bar">
        <img src="static/graphiql/icon.svg" alt="" />
        <strong>Stowage</strong>
        <span className="stowage-me">
          {me.email} <small>{me.role}</small>
        </span>
        <button type="button" onClick={onForget}>
          Forget token
        </button>
      </header>
      <GraphiQL
        fetcher={fetcher}
        plugins={plugins}
        defaultTabs={STARTERS}
        defaultEditorToolsVisibility="variables"
        shouldPersistHeaders={false}
        inputValueDeprecation
      >
        <GraphiQL.Logo>
          <span />
        </GraphiQL.Logo>
        <GraphiQL.Toolbar>
          {({ merge, prettify, copy }) => (
            <>
              {prettify}
              {merge}
              {copy}
              <FillIn learned={learned} />
            </>
          )}
        </GraphiQL.Toolbar>
      </GraphiQL>
    </>
  );
}

// For a moment after a change of tabs GraphiQL still speaks of the tab before: what is asked is read from the query.
function asked(parameters, options) {
  let documentAST;
  try {
    documentAST = parse(parameters.query);
  } catch {
    return [parameters, options]; // the server says what is wrong
  }
  const operations = documentAST.definitions.filter(({ kind }) => kind === Kind.OPERATION_DEFINITION);
  const operationName =
    operations.length === 1 ? operations[0].name?.value : (parameters.operationName ?? undefined);
  return [
    { ...parameters, operationName },
    { ...options, documentAST },
  ];
}

// Puts what earlier tabs answered into the variables of the tab that is shown.
function FillIn({ learned }) {
  const { activeTabIndex, tabs, variableEditor } = useEditorContext({ nonNull: true });
  useEffect(() => {
    if (!variableEditor) return undefined;
    // A moment later: GraphiQL notices changes, and keeps them for the next visit, only once all of it is there.
    const timer = setTimeout(() => {
      const text = variableEditor.getValue();
      // It shows the first of its default tabs without its variables.
      const filled = Object.entries(learned).reduce(
        (all, [name, value]) => all.replaceAll(JSON.stringify(name), JSON.stringify(value)),
        text || tabs[activeTabIndex]?.variables || '',
      );
      if (filled !== text) variableEditor.setValue(filled);
    });
    return () => clearTimeout(timer);
  }, [activeTabIndex, variableEditor, learned]);
  return null;
}

createRoot(document.getElementById('page')).render(<Page />);
