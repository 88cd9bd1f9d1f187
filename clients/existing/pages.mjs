// The pages, one for each client, from an origin of their own.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = createRequire(import.meta.url);

/** Version of an installed package. */
export const version = (name) => here(`${name}/package.json`).version;

/** Serves `/PAGE/` for each of these clients: a page with nothing but the script `pages/PAGE.js`. */
export async function startPages(clients) {
  const scripts = new Map(await Promise.all(clients.map(async (client) => [`/${client.page}.js`, await bundle(client)])));
  const http = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://pages");
    const script = scripts.get(pathname);
    if (script) return void response.writeHead(200, { "content-type": "text/javascript", "cache-control": "max-age=600" }).end(script);
    const page = /^\/([\w-]+)\/$/.exec(pathname)?.[1];
    if (!scripts.has(`/${page}.js`)) return void response.writeHead(404).end();
    const html = `<!doctype html><meta charset=utf-8><title>${page}</title><base href="/${page}/"><link rel=icon href=data:,>
      <body><script type=module src="/${page}.js"></script>`;
    response.writeHead(200, { "content-type": "text/html" }).end(html);
  });
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  const stop = () =>
    new Promise((resolve) => {
      http.close(resolve);
      http.closeAllConnections();
    });
  return { origin: `http://localhost:${http.address().port}`, stop };
}

/** What an application's bundler makes of the page's script and the packages, which are as they are on npm. */
async function bundle({ name, page }) {
  const axios = axiosOf(name);
  const options = {
    entryPoints: [fileURLToPath(new URL(`pages/${page}.js`, import.meta.url))],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    define: { "process.env.NODE_ENV": '"production"', global: "globalThis" },
    // A page has to call the copy of axios that its client works on.
    alias: axios ? { axios } : {},
    write: false,
    logLevel: "error",
  };
  const { outputFiles } = await build(options);
  return outputFiles[0].contents;
}

/** The folder of the axios that this package depends on, if it does. */
function axiosOf(name) {
  try {
    return dirname(createRequire(here.resolve(name)).resolve("axios/package.json"));
  } catch {
    return undefined;
  }
}
