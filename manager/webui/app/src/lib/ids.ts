/** Ids: addresses hold plain UUIDs, which the API takes for global ids. */

const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;

/** Return the plain UUID of a global id; anything else as it is. */
export function uuidOf(id: string): string {
  if (UUID.test(id)) return id;
  try {
    const key = atob(id).split(":")[1];
    return key !== undefined && UUID.test(key) ? key : id;
  } catch {
    return id;
  }
}

/** Split a model's name into author and name. */
export function nameParts(name: string): { author: string; model: string } {
  const slash = name.indexOf("/");
  return slash < 0 ? { author: "", model: name } : { author: name.slice(0, slash), model: name.slice(slash + 1) };
}
