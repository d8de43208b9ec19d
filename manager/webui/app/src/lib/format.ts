/** Numbers and times as people read them. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** Write a number of bytes, as the command line does; a `ByteSize` is a decimal string. */
export function bytes(value: string | number | null | undefined): string {
  if (value === null || value === undefined || value === "") return "unknown";
  let size = Number(value);
  if (!Number.isFinite(size) || size < 0) return "unknown";
  let unit = 0;
  while (size >= 1023.95 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(size) : size.toFixed(size >= 99.95 ? 0 : 1)} ${UNITS[unit]}`;
}

/** Write bytes per second. */
export function rate(perSecond: number): string {
  return `${bytes(Math.max(0, perSecond))}/s`;
}

/** Write a number of seconds in its two greatest units. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return whole < 600 && whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.round(whole / 60)} min`;
  if (whole < 86_400) {
    const minutes = Math.round((whole % 3600) / 60);
    return minutes ? `${Math.floor(whole / 3600)} h ${minutes} min` : `${Math.floor(whole / 3600)} h`;
  }
  const hours = Math.round((whole % 86_400) / 3600);
  return hours ? `${Math.floor(whole / 86_400)} d ${hours} h` : `${Math.floor(whole / 86_400)} d`;
}

/** Write how long ago a time is. */
export function ago(time: string, now: number = Date.now()): string {
  const seconds = (now - Date.parse(time)) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h ago`;
  if (seconds < 86_400 * 30) {
    const days = Math.round(seconds / 86_400);
    return days === 1 ? "yesterday" : `${days} days ago`;
  }
  return new Intl.DateTimeFormat("en", { day: "numeric", month: "short", year: "numeric" }).format(new Date(time));
}

/** Write a time in full, in the reader's zone. */
export function moment(time: string): string {
  return new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" }).format(new Date(time));
}

/** Write a count with its noun. */
export function count(number: number, one: string, many = `${one}s`): string {
  return `${new Intl.NumberFormat("en").format(number)} ${number === 1 ? one : many}`;
}

/** Shorten a commit as git does. */
export function shortCommit(commit: string): string {
  return commit.slice(0, 10);
}
