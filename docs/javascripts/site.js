// What the theme leaves out for keyboards and screen readers.
function name(selector, label) {
  document.querySelectorAll(selector).forEach((element, index) => {
    const words = index ? `${label} ${index + 1}` : label;
    element.setAttribute("aria-label", words);
  });
}
function complete() {
  name(".md-search", "Search");
  name(".md-code__nav", "Code");
  for (const scrolled of document.querySelectorAll(
    ".md-typeset pre > code, .md-typeset__scrollwrap",
  )) {
    scrolled.tabIndex = 0;
  }
}
complete();
new MutationObserver(complete).observe(document.body, {
  childList: true,
  subtree: true,
});
