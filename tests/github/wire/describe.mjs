// Cuts GitHub's description of its API down to the paths that report-rollout calls: node describe.mjs OUT
// Run where @octokit/openapi is installed. What is left loads in two seconds instead of seven.
import { readFileSync, writeFileSync } from "node:fs";

const paths = [
  "/deployments",
  "/deployments/{deployment_id}/statuses",
  "/environments",
  "/environments/{environment_name}/deployment_protection_rules",
  "/issues",
  "/issues/{issue_number}",
  "/issues/{issue_number}/comments",
].map((path) => "/repos/{owner}/{repo}" + path);

const whole = JSON.parse(
  readFileSync("node_modules/@octokit/openapi/generated/api.github.com.json", "utf8"),
);
const described = { openapi: whole.openapi, info: whole.info, servers: whole.servers, paths: {}, components: {} };
for (const path of paths) {
  if (!(path in whole.paths)) throw new Error(`GitHub no longer describes ${path}`);
  described.paths[path] = whole.paths[path];
}

// Everything that these paths refer to, and what that refers to.
const waiting = [described.paths];
while (waiting.length > 0) {
  const node = waiting.pop();
  if (node === null || typeof node !== "object") continue;
  if (typeof node.$ref === "string") {
    const [, , kind, name] = node.$ref.split("/");
    described.components[kind] ??= {};
    if (!(name in described.components[kind])) {
      described.components[kind][name] = whole.components[kind][name];
      waiting.push(whole.components[kind][name]);
    }
  }
  waiting.push(...Object.values(node));
}
writeFileSync(process.argv[2], JSON.stringify(described));
