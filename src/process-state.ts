const OURS = Symbol.for("litestream-s3");

/** What is in the process' state has a form; a copy of the package with another form must not read this one. */
const FORM = 1;

/**
 * State that exists once a process (or worker thread), also where the package is loaded more than once: by a bundler, by two
 * versions in node_modules, by a hot reload. Two copies then share one shutdown, one lock and one limit.
 * @param name what it is, the same in every copy
 * @param make called once
 */
export function processState<T extends object>(name: string, make: () => T): T {
  const everywhere = globalThis as { [OURS]?: Map<string, object> };
  everywhere[OURS] ??= new Map();
  const states = everywhere[OURS];
  const key = `${name}/${FORM}`;
  if (!states.has(key)) states.set(key, make());
  return states.get(key) as T;
}
