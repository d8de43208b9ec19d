import "./style.css";

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "./app";
import { connection, session } from "./client";

window.addEventListener("online", connection.tryNow);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) connection.tryNow();
});
void session.check().then((answered) => {
  if (!answered) connection.lost();
});

const page = document.getElementById("page");
if (page === null) throw new Error("index.html has no place for the page");
createRoot(page).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
