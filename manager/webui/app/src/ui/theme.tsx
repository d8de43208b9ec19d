/** Light, dark, or as the system has it; kept in this browser, and set again by theme.js before the first paint. */

import { type ReactElement, useState } from "react";

import { Icon } from "./icons";

const KEY = "stowage-theme";
const THEMES = ["auto", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

const NAMES = { auto: "as the system", light: "light", dark: "dark" } as const;
const ICONS = { auto: "auto", light: "sun", dark: "moon" } as const;

function chosen(): Theme {
  const theme = document.documentElement.dataset["theme"];
  return theme === "light" || theme === "dark" ? theme : "auto";
}

function choose(theme: Theme): void {
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  try {
    if (theme === "auto") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // It holds until the page is left.
  }
}

export function ThemeSwitch(): ReactElement {
  const [theme, setTheme] = useState(chosen);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
  const label = `Theme: ${NAMES[theme]}. Change to ${NAMES[next]}`;
  return (
    <button
      type="button"
      className="icon-button"
      aria-label={label}
      title={label}
      onClick={() => {
        choose(next);
        setTheme(next);
      }}
    >
      <Icon name={ICONS[theme]} />
    </button>
  );
}
