// A live page inside the book is light or dark as the book is, which has a switch of its own.

const book = parent !== window && parent.document.documentElement;

function follow() {
  const { theme } = book.dataset;
  document.documentElement.style.colorScheme = theme === "light" || theme === "dark" ? theme : "light dark";
}

if (book) {
  follow();
  new MutationObserver(follow).observe(book, { attributes: true, attributeFilter: ["data-theme"] });
}
