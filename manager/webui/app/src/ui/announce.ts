/** What screen readers are told without the focus moving. */

let listener: ((text: string) => void) | null = null;

export function announce(text: string): void {
  listener?.(text);
}

export function announcements(told: (text: string) => void): () => void {
  listener = told;
  return () => {
    listener = null;
  };
}
