import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// `npm run dev` serves the sources and passes the rest to a manager: STOWAGE_URL=http://127.0.0.1:8765 npm run dev
const manager = process.env["STOWAGE_URL"] ?? "http://127.0.0.1:8765";

export default defineConfig({
  base: "/app/",
  plugins: [react()],
  build: {
    outDir: "../static/app",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    // The first with light-dark() and :has().
    cssTarget: ["chrome123", "firefox121", "safari17.5"],
    license: { fileName: "LICENSES.md" },
  },
  server: {
    proxy: {
      "/graphql": { target: manager, changeOrigin: true, ws: true },
      "/session": { target: manager, changeOrigin: true },
    },
  },
  test: {
    environment: "node",
    include: ["src/**/*.test.{ts,tsx}"],
    restoreMocks: true,
  },
});
