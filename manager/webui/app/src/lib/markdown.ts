/**
 * Readmes, written by strangers, as HTML that does nothing: no script, no style, no form, no request. Links open
 * elsewhere and tell nothing; an image becomes a link that bears its text. Loaded with the first readme.
 */

import DOMPurify from "dompurify";
import { Marked } from "marked";

// The sanitiser takes handlers and styles away; browsers report them as soon as they are parsed, so they go before.
const REPORTED = /[\s/"'](?:on\w+|style)\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>]*)/gi;

const marked = new Marked({
  gfm: true,
  async: false,
  renderer: { html: ({ text }) => text.replace(REPORTED, " ") },
});

const TAGS = [
  "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4",
  "h5", "h6", "hr", "i", "img", "input", "ins", "kbd", "li", "ol", "p", "pre", "q", "s", "samp", "small", "span", "strong",
  "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "var",
];
const ATTRIBUTES = ["href", "title", "alt", "src", "align", "colspan", "rowspan", "start", "open", "type", "checked", "disabled"];

/** Take away the front matter that hubs keep at the top of a readme. */
export function withoutFrontMatter(readme: string): string {
  return readme.replace(/^\uFEFF?---[ \t]*\r?\n[\s\S]*?\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|$)/, "");
}

/** Render markdown into a piece of the document. Headings begin at level 3: the page has its own above. */
export function renderMarkdown(readme: string): DocumentFragment {
  const html = marked.parse(withoutFrontMatter(readme)) as string;
  // In a template nothing is loaded and nothing runs; images are gone before any of it comes into the page.
  const inert = document.createElement("template");
  inert.innerHTML = html;
  const clean = inert.content.ownerDocument.createElement("div");
  clean.append(...inert.content.childNodes);
  DOMPurify.sanitize(clean, {
    IN_PLACE: true,
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#|[^a-z]|[a-z+.-]+(?:[^a-z+.\-:]|$))/i,
  });
  for (const image of clean.querySelectorAll("img")) image.replaceWith(linkFor(image));
  for (const link of clean.querySelectorAll("a")) settle(link);
  for (const input of clean.querySelectorAll("input")) {
    if (input.getAttribute("type") !== "checkbox") input.remove();
    else {
      input.disabled = true;
      input.setAttribute("aria-label", input.checked ? "done" : "not done");
    }
  }
  for (const heading of clean.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const lower = clean.ownerDocument.createElement(`h${Math.min(6, Number(heading.tagName.slice(1)) + 2)}`);
    lower.append(...heading.childNodes);
    heading.replaceWith(lower);
  }
  for (const table of clean.querySelectorAll("table")) {
    const frame = clean.ownerDocument.createElement("div");
    frame.className = "scroll-x";
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Table");
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const code of clean.querySelectorAll("pre")) code.tabIndex = 0;
  const rendered = document.createDocumentFragment();
  rendered.append(...document.importNode(clean, true).childNodes);
  return rendered;
}

function linkFor(image: HTMLImageElement): Node {
  const text = image.getAttribute("alt")?.trim() || "image";
  const source = image.getAttribute("src") ?? "";
  if (image.closest("a") !== null || !/^https?:/i.test(source)) {
    return Object.assign(image.ownerDocument.createElement("span"), { className: "image-text", textContent: text });
  }
  return Object.assign(image.ownerDocument.createElement("a"), { className: "image-text", textContent: text, href: source });
}

function settle(link: HTMLAnchorElement): void {
  const target = link.getAttribute("href") ?? "";
  if (/^(https?:)?\/\//i.test(target) || /^mailto:/i.test(target)) {
    link.rel = "noopener noreferrer nofollow";
    link.target = "_blank";
  } else {
    // A path in the registry's repository, or a heading here: neither is an address of this page.
    link.replaceWith(...link.childNodes);
  }
}
