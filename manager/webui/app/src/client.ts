/** The one connection to the manager: queries and mutations over HTTP, subscriptions over a WebSocket, both signed by the cookie. */

import { cacheExchange, Client, fetchExchange, mapExchange, subscriptionExchange } from "@urql/core";
import { createClient } from "graphql-ws";

import { Connection, retryDelay } from "./lib/connection";
import { PAGE_HEADERS, Session } from "./lib/session";

export const connection: Connection = new Connection(() => session.check());
export const session = new Session((...request) => fetch(...request), connection.renewed);

const NORMAL_CLOSURES = [1000, 1001];
const REFUSED = [4401, 4403];

const socket = createClient({
  url: () => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/graphql`,
  lazyCloseTimeout: 3000,
  keepAlive: 12_000,
  connectionAckWaitTimeout: 10_000,
  retryAttempts: Number.POSITIVE_INFINITY,
  shouldRetry: () => true,
  retryWait: (attempt) => new Promise((done) => setTimeout(done, retryDelay(attempt))),
  on: {
    closed: (event) => {
      const code = event instanceof CloseEvent ? event.code : 1006;
      if (REFUSED.includes(code)) void session.check();
      else if (!NORMAL_CLOSURES.includes(code)) connection.lost();
    },
    error: () => connection.lost(),
  },
});

/** Make a client; another user gets another one, with nothing of the last one's in its cache. */
export function makeClient(): Client {
  return new Client({
    url: "/graphql",
    preferGetMethod: false,
    fetchOptions: { headers: PAGE_HEADERS },
    exchanges: [
      mapExchange({
        onResult(result) {
          if (result.error?.networkError && result.error.response === undefined) connection.lost();
          if (result.error?.graphQLErrors.some((error) => error.extensions["code"] === "UNAUTHENTICATED")) session.expire();
        },
      }),
      cacheExchange,
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: ({ query, variables }) => ({
          subscribe: (sink) => ({
            unsubscribe: socket.subscribe(
              { query: query ?? "", ...(variables === undefined ? {} : { variables: { ...variables } }) },
              {
                next: (value) => sink.next(value as Parameters<typeof sink.next>[0]),
                error: (error) => sink.error(error),
                complete: () => sink.complete(),
              },
            ),
          }),
        }),
      }),
    ],
  });
}
