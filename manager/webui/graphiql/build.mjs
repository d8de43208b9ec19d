// Bundles the page into ../static/graphiql: one script, one style sheet, one page, and the licences of what is in them.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import esbuild from 'esbuild';

const OUT = '../static/graphiql';

rmSync(OUT, { recursive: true, force: true });
mkdirSync(OUT, { recursive: true });
const { metafile } = await esbuild.build({
  entryPoints: ['page.jsx'],
  outdir: OUT,
  entryNames: '[name]-[hash]',
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
  legalComments: 'none',
  metafile: true,
});

const built = (extension) => basename(Object.keys(metafile.outputs).find((path) => path.endsWith(extension)));
const page = readFileSync('index.html', 'utf8')
  .replace('page.css', `static/graphiql/${built('.css')}`)
  .replace('page.js', `static/graphiql/${built('.js')}`)
  .replace('icon.svg', 'static/graphiql/icon.svg');
writeFileSync(join(OUT, 'index.html'), page);
writeFileSync(join(OUT, 'icon.svg'), readFileSync('icon.svg'));
writeFileSync(join(OUT, 'LICENSES.txt'), licences(Object.keys(metafile.inputs)));
writeFileSync(join(OUT, 'SOURCE.sha256'), sources());

function licences(inputs) {
  const folders = new Set(inputs.filter((path) => path.includes('node_modules/')).map(packageFolder));
  const parts = [...folders].map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const file = readdirSync(folder).find((each) => /^(licen[cs]e|copying)/i.test(each));
    return [`${name} ${version} (${license})`, file ? readFileSync(join(folder, file), 'utf8').trim() : ''];
  });
  // The style sheet of @graphiql/react holds them.
  parts.push(['Roboto (font)', 'Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0']);
  parts.push(['Fira Code (font)', 'Copyright The Fira Code Project Authors. SIL Open Font License 1.1, https://openfontlicense.org']);
  parts.sort(([one], [other]) => (one < other ? -1 : 1));
  return parts.map(([title, text]) => `${title}\n\n${text}\n`).join(`\n${'-'.repeat(80)}\n\n`);
}

function packageFolder(path) {
  let folder = dirname(path);
  while (!existsSync(join(folder, 'package.json')) || !JSON.parse(readFileSync(join(folder, 'package.json'))).version) {
    folder = dirname(folder);
  }
  return folder;
}

function sources() {
  const names = readdirSync('.').filter((name) => name !== 'node_modules' && name !== 'build.sh' && name !== '.gitignore').sort();
  const digest = (name) => createHash('sha256').update(readFileSync(name)).digest('hex');
  return names.map((name) => `${digest(name)}  ${name}\n`).join('');
}
