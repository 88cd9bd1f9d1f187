// How large the client is: what a page loads once its bundler has made one minified module of it. With --check: whether the
// README says so.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const { outputFiles } = await build({
  entryPoints: [path("dist/index.js")],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  write: false,
});
const { contents } = outputFiles[0];
const kB = (bytes) => (bytes / 1000).toFixed(1);
const [minified, gzipped] = [contents.length, gzipSync(contents, { level: 9 }).length];
console.log(`${kB(minified)} kB minified, ${kB(gzipped)} kB of that gzipped`);

if (process.argv.includes("--check")) {
  const readme = await readFile(path("README.md"), "utf8");
  const said = /([\d.]+) kB minified, ([\d.]+) kB gzipped/.exec(readme);
  // Versions of zlib differ by a few bytes.
  const isTrue = said && said[1] === kB(minified) && Math.abs(Number(said[2]) - gzipped / 1000) < 0.1;
  if (!isTrue) {
    console.error(`README.md says "${said?.[0]}"`);
    process.exit(1);
  }
}
