import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    globalSetup: ["test/support/announce.ts"],
    // More than the cores: most of the time is litestream 0.3 waiting for its next second.
    maxWorkers: 4,
    // A generous limit for slow machines: the tests wait for events, not for time.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      { extends: true, test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      { extends: true, test: { name: "lives", include: ["test/lives/**/*.test.ts"] } },
      { extends: true, test: { name: "integration", include: ["test/integration/**/*.test.ts"] } },
      // Gigabytes: `npm run load`.
      {
        extends: true,
        test: { name: "load", include: ["test/load/**/*.test.ts"], testTimeout: 900_000 },
      },
    ],
  },
});
