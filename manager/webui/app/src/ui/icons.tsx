/** Icons: decoration beside words, or named by the button that holds them. */

import type { ReactElement } from "react";

const PATHS = {
  search: "M7 12.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM11 11l3.5 3.5",
  check: "M3 8.5l3.200 3.200L13 4.800",
  cross: "M4 4l8 8M12 4l-8 8",
  right: "M6 3.5L10.5 8 6 12.5",
  down: "M3.5 6L8 10.5 12.5 6",
  back: "M10 3.5L5.5 8l4.5 4.5",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  folder: "M1.5 4v8.5h13V5.5H8L6.5 3.5h-5z",
  file: "M3.5 1.5h5.5l3.5 3.5v9.5h-9zM9 1.5V5h3.5",
  plus: "M8 3v10M3 8h10",
  download: "M8 2v8.5M4.5 7.5L8 11l3.5-3.5M2.5 14h11",
  shield: "M8 1.5l5.5 2v4.300c0 3.200-2.300 5.5-5.5 6.700-3.200-1.200-5.5-3.5-5.5-6.700V3.5zM5.5 8l1.900 1.900L10.800 6.300",
  alert: "M8 2l6.5 11.5h-13zM8 6.5v3.200M8 11.700v.1",
  stop: "M4 4h8v8H4z",
  retry: "M13 8a5 5 0 1 1-1.600-3.700M13 2v3h-3",
  sun: "M8 5.200a2.800 2.800 0 1 0 0 5.600 2.800 2.800 0 0 0 0-5.600zM8 1.200v1.300M8 13.5v1.300M1.200 8h1.300M13.5 8h1.300M3.200 3.200l.9.900M11.900 11.900l.9.900M3.200 12.800l.9-.9M11.900 4.100l.9-.9",
  moon: "M13.5 9.700A5.800 5.800 0 0 1 6.300 2.5a5.800 5.800 0 1 0 7.200 7.200z",
  auto: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 2v12M8 5h4.900M8 8h6M8 11h4.900",
  person: "M8 8.200a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2.5 14c.6-2.600 2.700-4 5.5-4s4.900 1.400 5.5 4",
  link: "M9.5 2.5h4v4M13.5 2.5L8 8M7 3.5H2.5v10h10V9",
  eye: "M1.200 8S3.5 3.5 8 3.5 14.800 8 14.800 8 12.5 12.5 8 12.5 1.200 8 1.200 8zM8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4z",
  hourglass: "M4 1.5h8M4 14.5h8M4.800 1.5v2.700L8 8l3.200-3.800V1.5M4.800 14.5v-2.700L8 8l3.200 3.800v2.700",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }): ReactElement {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The sign of Stowage: a hold with its hatch. */
export function Sign(): ReactElement {
  return (
    <svg className="sign" width="26" height="26" viewBox="0 0 26 26" aria-hidden="true" focusable="false">
      <path className="sign-hatch" d="M2 3.5h22v4.5H2z" />
      <path className="sign-hold" d="M3.5 10.5h19v10a3 3 0 0 1-3 3h-13a3 3 0 0 1-3-3z" />
      <path className="sign-slot" d="M9 15.5h8" />
    </svg>
  );
}

/** A stow plan drawn from a name: the same name has the same one everywhere. */
export function StowPlan({ name }: { name: string }): ReactElement {
  let seed = 2166136261;
  for (const character of name) seed = Math.imul(seed ^ (character.codePointAt(0) ?? 0), 16777619) >>> 0;
  const next = (): number => {
    seed = (Math.imul(seed ^ (seed >>> 15), 2246822519) + 0x9e3779b9) >>> 0;
    return seed >>> 8;
  };
  const hue = next() % 4;
  const boxes: ReactElement[] = [];
  for (let bay = 0; bay < 4; bay += 1) {
    const height = 1 + (next() % 4);
    for (let tier = 0; tier < height; tier += 1) {
      const shade = next() % 3;
      boxes.push(
        <rect key={`${bay}.${tier}`} className={`box box-${shade}`} x={1 + bay * 10} y={31 - tier * 10} width="8.5" height="8.5" rx="1.5" />,
      );
    }
  }
  return (
    <svg className={`stow-plan stow-${hue}`} width="41" height="41" viewBox="0 0 41 41" aria-hidden="true" focusable="false">
      {boxes}
    </svg>
  );
}
