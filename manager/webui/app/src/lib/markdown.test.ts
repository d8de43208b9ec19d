// @vitest-environment jsdom
import { expect, test } from "vitest";

import { renderMarkdown, withoutFrontMatter } from "./markdown";

function rendered(readme: string): HTMLElement {
  const place = document.createElement("div");
  place.append(renderMarkdown(readme));
  return place;
}

test("front matter is no text", () => {
  expect(withoutFrontMatter("---\nlicense: mit\n---\n# Hi\n")).toBe("# Hi\n");
  expect(withoutFrontMatter("\uFEFF---\r\na: b\r\n---\r\nHi")).toBe("Hi");
  expect(withoutFrontMatter("# Hi\n\n---\n\nthere\n\n---\n")).toBe("# Hi\n\n---\n\nthere\n\n---\n");
});

test("headings begin beneath those of the page", () => {
  expect(rendered("# One\n\n## Two\n\n###### Six").innerHTML.replace(/\n/g, "")).toBe("<h3>One</h3><h4>Two</h4><h6>Six</h6>");
});

const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  '<img src="https://evil.example/pixel.png">',
  "![pixel](https://evil.example/pixel.png)",
  "<svg><style>@import 'https://evil.example/a.css'</style></svg>",
  "<style>body{display:none}</style>",
  '<div style="position:fixed;inset:0">over all</div>',
  '<a href="javascript:alert(1)">x</a>',
  "[x](javascript:alert(1))",
  '<a href="&#106;avascript:alert(1)">x</a>',
  '<a href="data:text/html,<script>alert(1)</script>">x</a>',
  '<iframe src="https://evil.example"></iframe>',
  '<form action="https://evil.example"><input name=token><button>Sign in</button></form>',
  '<base href="https://evil.example/">',
  '<meta http-equiv="refresh" content="0;url=https://evil.example">',
  '<link rel="stylesheet" href="https://evil.example/a.css">',
  '<video src="https://evil.example/v.mp4" autoplay></video>',
  '<div id="page" class="dialog" name="body">clobber</div>',
  "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
  '<details ontoggle="alert(1)" open>x</details>',
  '<object data="https://evil.example"></object><embed src="https://evil.example">',
];

test.each(HOSTILE)("%s does nothing", (readme) => {
  const place = rendered(`before\n\n${readme}\n\nafter`);
  expect(place.querySelector("script, style, img, svg, iframe, form, button, base, meta, link, video, object, embed, math")).toBeNull();
  for (const element of place.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      expect(name).not.toMatch(/^on|^style$|^id$|^name$|^src$|^srcset$/);
      if (name === "href") expect(value).toMatch(/^(https?:|mailto:)/);
    }
    if (element.className !== "") expect(["image-text", "scroll-x"]).toContain(element.className);
  }
});

test("links open elsewhere and tell nothing", () => {
  const link = rendered("[paper](https://example.org/paper)").querySelector("a");
  expect(link?.rel).toBe("noopener noreferrer nofollow");
  expect(link?.target).toBe("_blank");
});

test("an image is a link that bears its text", () => {
  const link = rendered("![A diagram](https://example.org/a.png)").querySelector("a");
  expect(link?.textContent).toBe("A diagram");
  expect(link?.href).toBe("https://example.org/a.png");
  expect(rendered('<img src="https://example.org/a.png">').textContent).toContain("image");
});

test("a badge in a link stays that link", () => {
  const place = rendered("[![License](https://example.org/badge.svg)](https://example.org/license)");
  expect(place.querySelectorAll("a")).toHaveLength(1);
  expect(place.querySelector("a")?.href).toBe("https://example.org/license");
  expect(place.textContent?.trim()).toBe("License");
});

test("a path within the registry is no address of this page", () => {
  const place = rendered("[config](config.json), [up](../x), [there](#usage), [abs](/folders)");
  expect(place.querySelector("a")).toBeNull();
  expect(place.textContent).toContain("config, up, there, abs");
});

test("what follows a stray end tag is kept", () => {
  expect(rendered("one</div>\n\ntwo\n\n</div></body></html>three").textContent).toMatch(/one[\s\S]*two[\s\S]*three/);
});

test("tables and boxes can be read by everybody", () => {
  const place = rendered("| a | b |\n|---|---|\n| 1 | 2 |\n\n- [x] done\n- [ ] open\n");
  expect(place.querySelector("table")?.parentElement?.tabIndex).toBe(0);
  expect([...place.querySelectorAll("input")].map((box) => [box.type, box.disabled, box.ariaLabel ?? box.getAttribute("aria-label")])).toEqual([
    ["checkbox", true, "done"],
    ["checkbox", true, "not done"],
  ]);
});
