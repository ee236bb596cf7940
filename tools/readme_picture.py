"""Compose figures/readme/overview.png from what `make reproduce` left in figures/; run it after a new release."""

from pathlib import Path

from PIL import Image

WIDTH, GAP = 1600, 40
SOURCES = (
    "02_evaluate_generalization/learning_curves_of_all_games.png",
    "03_embed_and_cluster/fdr_and_tsne_space.png",
    "04_prototype_visualization/decision_divided.png",
)


def main() -> None:
    """Stack the source figures on white, scaled to one width, with few colours to keep the file small."""
    figures = Path("figures")
    pictures = [Image.open(figures / source).convert("RGB") for source in SOURCES]
    scaled = [p.resize((WIDTH, round(p.height * WIDTH / p.width)), Image.Resampling.LANCZOS) for p in pictures]
    page = Image.new("RGB", (WIDTH, sum(p.height for p in scaled) + GAP * (len(scaled) - 1)), "white")
    top = 0
    for picture in scaled:
        page.paste(picture, (0, top))
        top += picture.height + GAP
    target = figures / "readme" / "overview.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    page.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main()
