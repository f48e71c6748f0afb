// What the theme leaves out: tables and code that scroll are reached by keyboard, the search has a name, and so have copy buttons.
function reach() {
  for (const part of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
  document.querySelectorAll(".md-code__nav").forEach((buttons, i) => buttons.setAttribute("aria-label", `Code ${i + 1}`));
}
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
addEventListener("load", () => requestAnimationFrame(reach));
addEventListener("resize", reach);
