// Writes sources.json beside the built page: one digest over everything it is built from, so that a test can tell when
// it is stale. tests/test_page.py reads the same files in the same order. What it asks is held against the schema there.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const app = fileURLToPath(new URL("../", import.meta.url));
const built = new URL("../../static/app/sources.json", import.meta.url);
// Not what is built from these sources, and not what says which they are.
const left = new Set(["node_modules", "src/graphql/generated.ts"]);

function files(within) {
  return readdirSync(app + within, { withFileTypes: true }).flatMap((entry) => {
    const path = within + entry.name;
    if (left.has(path)) return [];
    return entry.isDirectory() ? files(`${path}/`) : [path];
  });
}

const paths = files("").filter((path) => !/\.test\.tsx?$/.test(path));
paths.sort((one, other) => (one < other ? -1 : 1));
const total = createHash("sha256");
for (const path of paths) total.update(`${path}\0${createHash("sha256").update(readFileSync(app + path)).digest("hex")}\n`);
writeFileSync(built, `${JSON.stringify({ sha256: total.digest("hex") })}\n`);

// The fonts' licences, which the bundler does not see.
const licenses = new URL("../../static/app/LICENSES.md", import.meta.url);
const fonts = ["instrument-sans", "geist-mono"].map(
  (font) => `\n## @fontsource-variable/${font}\n\n${readFileSync(`${app}node_modules/@fontsource-variable/${font}/LICENSE`, "utf8")}`,
);
writeFileSync(licenses, readFileSync(licenses, "utf8") + fonts.join(""));
